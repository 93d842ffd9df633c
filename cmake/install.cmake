# What `cmake --install` puts where: the library with its headers and CMake package, the program, its manual page and
# its completions.
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sennit)

install(TARGETS sennit EXPORT sennitTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/sennit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT sennitTargets NAMESPACE sennit:: DESTINATION ${package})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/sennitConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/sennitConfig.cmake
  INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/sennitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sennitConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/sennitConfigVersion.cmake DESTINATION ${package})

# The program writes its own manual and completions.
set(written "")
foreach(entry IN ITEMS "sennit.1 man" "sennit.bash completion bash" "_sennit completion zsh" "sennit.fish completion fish")
  separate_arguments(entry)
  list(POP_FRONT entry file)
  add_custom_command(OUTPUT ${file} COMMAND sennit_cli ${entry} > ${file} DEPENDS sennit_cli VERBATIM)
  list(APPEND written ${CMAKE_CURRENT_BINARY_DIR}/${file})
endforeach()
add_custom_target(sennit_manual ALL DEPENDS ${written})
install(TARGETS sennit_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sennit.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/bench/peers/ DESTINATION ${CMAKE_INSTALL_DATADIR}/sennit/peers USE_SOURCE_PERMISSIONS)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sennit.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME sennit)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_sennit DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sennit.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
