#include "products/precision.h"

#include <atomic>
#include <cstdlib>

#include "base/error.h"

namespace sennit {
namespace {

AmxTiles initial_tiles() {
  const char* name = std::getenv("SENNIT_AMX_TILES");
  if (!name || !*name) return AmxTiles::timed;
  for (const AmxTiles tiles : {AmxTiles::timed, AmxTiles::wide, AmxTiles::narrow})
    if (std::string_view(name) == to_string(tiles)) return tiles;
  fail({"SENNIT_AMX_TILES", "timed, 2x2 or 1x2", name, "environment"});
}

std::atomic<AmxTiles>& current_tiles() {
  static std::atomic<AmxTiles> tiles{initial_tiles()};
  return tiles;
}

}  // namespace

const char* to_string(Precision precision) {
  return precision == Precision::f32 ? "f32" : "bf16";
}

Precision parse_precision(std::string_view name, std::string_view who) {
  for (const Precision p : {Precision::f32, Precision::bf16})
    if (name == to_string(p)) return p;
  fail({std::string(who), "f32 or bf16", std::string(name)});
}

const char* to_string(AmxTiles tiles) {
  return tiles == AmxTiles::timed ? "timed" : tiles == AmxTiles::wide ? "2x2" : "1x2";
}

AmxTiles amx_tiles() {
  return current_tiles().load(std::memory_order_relaxed);
}

void set_amx_tiles(AmxTiles tiles) {
  current_tiles().store(tiles);
}

}  // namespace sennit
