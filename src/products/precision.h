#pragma once
#include <string_view>

namespace sennit {

// In what form the factors of a product enter it. Sums are always f32.
enum class Precision { f32, bf16 };

const char* to_string(Precision precision);
// Throws Error naming `who` when `name` is not a precision.
Precision parse_precision(std::string_view name, std::string_view who);

// Which kernel AMX runs bf16 products with; all give the same bits. `wide` (2x2 tiles) loads less; `narrow` (1x2) keeps
// fewer tiles live, which can be faster while the core's other thread, somebody else's often, uses them too. `timed`,
// the default, lets each thread time both on its own work every few milliseconds. SENNIT_AMX_TILES=timed|2x2|1x2
// chooses.
enum class AmxTiles { timed, wide, narrow };
const char* to_string(AmxTiles tiles);
AmxTiles amx_tiles();
void set_amx_tiles(AmxTiles tiles);

}  // namespace sennit
