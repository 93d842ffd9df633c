// The law of auxiliary losses bites.
#include <gtest/gtest.h>

#include "laws/auxiliary_law.h"
#include "laws/wrong/teaching.h"

namespace sennit::laws::wrong_teaching_test {

TEST(WrongTeaching, BreaksTheLawOfAuxiliaryLosses) {
  EXPECT_EQ(auxiliary_losses(teaching(Teaching::whole), Pattern::causal), "");
  for (const Teaching how : {Teaching::leaks, Teaching::halved, Teaching::silent})
    EXPECT_NE(auxiliary_losses(teaching(how), Pattern::causal), "") << static_cast<int>(how);
}

}  // namespace sennit::laws::wrong_teaching_test
