#pragma once

namespace sennit {

const char* version();  // "0.1.0"

}  // namespace sennit
