// Every registered channel mixer and norm under the laws of row maps, and row maps that break them.
#include "laws/wrong/rows.h"

#include <gtest/gtest.h>

#include "laws/row_laws.h"

namespace sennit::laws::rows_test {

TEST(RowLaws, HoldForChannels) {
  for (const RowCase& c : registered_channels())
    for (const RowLaw& law : row_laws()) EXPECT_EQ(law.check(c), "") << c.name << " breaks " << law.name;
}

TEST(RowLaws, HoldForNorms) {
  for (const RowCase& c : registered_norms())
    for (const RowLaw& law : row_laws()) EXPECT_EQ(law.check(c), "") << c.name << " breaks " << law.name;
}

TEST(RowLaws, HoldWithoutAMistake) {
  for (const RowLaw& law : row_laws()) EXPECT_EQ(law.check(wrong_rows(RowFault::none)), "") << law.name;
}

TEST(RowLaws, AreBrokenByMistakes) {
  const std::pair<RowFault, std::string> mistakes[] = {
      {RowFault::batch_mean, "RowsAreAlone"}, {RowFault::last_row, "ForwardIsNaive"},
      {RowFault::gradient, "Gradients"},      {RowFault::threads, "ThreadsChangeNothing"},
      {RowFault::cost, "CostsAsDeclared"},    {RowFault::recorded, "RowsAreAlone"}};
  for (const auto& [fault, name] : mistakes)
    for (const RowLaw& law : row_laws()) {
      if (law.name == name) {
        EXPECT_NE(law.check(wrong_rows(fault)), "") << name << " holds for mistake " << static_cast<int>(fault);
      }
    }
}

}  // namespace sennit::laws::rows_test
