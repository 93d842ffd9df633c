#pragma once
#include "laws/row_laws.h"

namespace sennit::laws {

// y = w x, a number a column, whole or with one mistake.
enum class RowFault {
  none,
  batch_mean,  // a little of the mean of all rows
  last_row,    // the last of an odd number of rows is left as it was
  gradient,    // the weight's gradient misses the first row
  threads,     // the weight's gradient is summed by as many parts as there are threads
  cost,        // declares half of what it does
  recorded     // other bits with the tape on
};
RowCase wrong_rows(RowFault fault);

}  // namespace sennit::laws
