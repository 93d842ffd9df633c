#include "ops/count.h"

namespace sennit {

OperationCount& operation_count() {
  static thread_local OperationCount count;
  return count;
}

}  // namespace sennit
