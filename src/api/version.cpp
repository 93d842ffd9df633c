#include "sennit/version.h"

namespace sennit {

const char* version() {
  return SENNIT_VERSION;
}

}  // namespace sennit
