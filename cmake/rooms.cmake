# A room is a folder of src/ compiled into one object library; libsennit is all of them. Files are found by
# listing, so that adding one needs no edit here.

add_library(sennit_flags INTERFACE)
target_compile_options(sennit_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wno-unknown-pragmas
  $<$<BOOL:${SENNIT_WERROR}>:-Werror>)
# Below -O3, g++ 12 sees overlaps in std::string's + that are not there (GCC bug 105651).
target_compile_options(sennit_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
# Our units are large: looking for garbage as early as g++ does by default costs a fifth of their time.
target_compile_options(sennit_flags INTERFACE
  $<$<CXX_COMPILER_ID:GNU>:SHELL:--param ggc-min-expand=200 --param ggc-min-heapsize=700000>)
# The kernels' results must not depend on what the compiler contracts; each kernel asks for fma by name.
target_compile_options(sennit_flags INTERFACE -ffp-contract=off -fno-math-errno)
# Nothing watches targets with the property SENNIT_UNWATCHED.
set(watched $<NOT:$<BOOL:$<TARGET_PROPERTY:SENNIT_UNWATCHED>>>)
if(SENNIT_SANITIZE)
  target_compile_options(sennit_flags INTERFACE
    "$<${watched}:-fsanitize=${SENNIT_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(sennit_flags INTERFACE -fsanitize=${SENNIT_SANITIZE})
endif()
if(SENNIT_FUZZ)
  target_compile_options(sennit_flags INTERFACE $<${watched}:-fsanitize=fuzzer-no-link>)  # coverage of the library itself
  target_compile_definitions(sennit_flags INTERFACE SENNIT_SCALAR_ONLY)
endif()

set_property(GLOBAL PROPERTY SENNIT_ROOMS "")

# sennit_room(name [COLD] [SOURCES extra...]): every src/<name>/*.cpp plus generated sources. COLD: it has no loops that cost
# time, so that compiling them well is not worth the wait.
function(sennit_room name)
  cmake_parse_arguments(ROOM "COLD" "" "SOURCES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/kernels/")
  add_library(sennit_${name} OBJECT ${sources} ${ROOM_SOURCES})
  target_include_directories(sennit_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(sennit_${name} PRIVATE sennit_flags fmt::fmt nlohmann_json::nlohmann_json)
  target_compile_options(sennit_${name} PRIVATE $<$<CONFIG:Release>:$<IF:$<BOOL:${ROOM_COLD}>,-O1,-O2>>)
  set_property(GLOBAL APPEND PROPERTY SENNIT_ROOMS sennit_${name})
endfunction()

# sennit_library(name): of the rooms so far.
function(sennit_library name)
  get_property(rooms GLOBAL PROPERTY SENNIT_ROOMS)
  set(objects "")
  foreach(room ${rooms})
    list(APPEND objects $<TARGET_OBJECTS:${room}>)
  endforeach()
  add_library(${name} STATIC ${objects})
  target_include_directories(${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_link_libraries(${name} PUBLIC fmt::fmt Threads::Threads
    PRIVATE sentencepiece sentencepiece_train pcre2-8 ICU::uc SQLite::SQLite3 $<BUILD_INTERFACE:sennit_flags>)
  if(SENNIT_SANITIZE)  # who links an instrumented library needs its runtime, from an installed tree too
    target_link_options(${name} PUBLIC -fsanitize=${SENNIT_SANITIZE})
  endif()
endfunction()

# sennit_registry(out room): writes a source that calls register_<file>() for each file of a socket's room, so that a
# new idea is one new file. The contract's own sources (registry.cpp and the singular of the room's name) are left out, and
# files with a header of their own, which several ideas share.
function(sennit_registry out room type)
  string(REGEX REPLACE "s$" "" contract ${room})
  string(REGEX REPLACE "ie$" "y" contract ${contract})
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${room}/*.cpp)
  set(declarations "")
  set(calls "")
  foreach(file ${files})
    get_filename_component(stem ${file} NAME_WE)
    if(NOT stem MATCHES "^(registry|${contract})$" AND NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${room}/${stem}.h)
      string(APPEND declarations "void register_${stem}(Registry<${type}>&);\n")
      string(APPEND calls "    register_${stem}(r);\n")
    endif()
  endforeach()
  string(CONFIGURE [[#include "@room@/@contract@.h"

namespace sennit::@room@ {
@declarations@
Registry<@type@>& registry() {
  static Registry<@type@> all = [] {
    Registry<@type@> r("@contract@");
@calls@    return r;
  }();
  return all;
}
}  // namespace sennit::@room@
]] text @ONLY)
  set(path ${CMAKE_CURRENT_BINARY_DIR}/${room}.gen.cpp)
  file(CONFIGURE OUTPUT ${path} CONTENT "${text}" @ONLY)
  set(${out} ${path} PARENT_SCOPE)
endfunction()

# Kernels: each src/kernels/<name>.cpp is compiled once per level, <name>.amx.cpp once with AMX.
function(sennit_kernels)
  file(GLOB all CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/*.cpp)
  set(levelled ${all})
  list(FILTER levelled EXCLUDE REGEX "\\.amx\\.cpp$")
  set(amx ${all})
  list(FILTER amx INCLUDE REGEX "\\.amx\\.cpp$")
  set(flags_scalar $<$<CONFIG:Release>:-O2> -fno-tree-vectorize)  # at -O3 it takes twice as long to compile
  set(flags_avx2 $<$<CONFIG:Release>:-O3> -mavx2 -mfma -mf16c)
  set(flags_avx512 $<$<CONFIG:Release>:-O3> -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mavx512vnni -mavx512bf16 -mfma -mf16c -mprefer-vector-width=512)
  # g++ 12 takes the deliberately undefined inputs of its own intrinsics for mistakes (GCC bug 105593).
  list(APPEND flags_avx512 $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized$<SEMICOLON>-Wno-maybe-uninitialized>)
  set(levels scalar)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT SENNIT_FUZZ)  # which is of readers
    list(APPEND levels avx2 avx512)
  endif()
  foreach(level ${levels})
    add_library(sennit_kernels_${level} OBJECT ${levelled})
    target_compile_definitions(sennit_kernels_${level} PRIVATE SENNIT_LEVEL=${level} SENNIT_LEVEL_${level}=1)
    target_compile_options(sennit_kernels_${level} PRIVATE ${flags_${level}})
    list(APPEND rooms sennit_kernels_${level})
  endforeach()
  if(amx AND avx512 IN_LIST levels)
    add_library(sennit_kernels_amx OBJECT ${amx})
    target_compile_definitions(sennit_kernels_amx PRIVATE SENNIT_LEVEL=amx SENNIT_LEVEL_amx=1)
    target_compile_options(sennit_kernels_amx PRIVATE ${flags_avx512} -mamx-tile -mamx-bf16 -mamx-int8)
    list(APPEND rooms sennit_kernels_amx)
  endif()
  if(SENNIT_SANITIZE MATCHES "thread")  # at -O1 g++ 12 fails inside (esra)
    set_source_files_properties(kernels/gla.cpp PROPERTIES COMPILE_OPTIONS -O2)
  endif()
  foreach(room ${rooms})
    set_target_properties(${room} PROPERTIES UNITY_BUILD OFF)
    target_include_directories(${room} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(${room} PRIVATE sennit_flags)
    # Kernels are watched in the presets dev and tsan. clang takes minutes for some of them.
    set_target_properties(${room} PROPERTIES SENNIT_UNWATCHED "${SENNIT_FUZZ}")
    set_property(GLOBAL APPEND PROPERTY SENNIT_ROOMS ${room})
  endforeach()
endfunction()
