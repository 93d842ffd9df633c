#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "positions/position.h"

namespace sennit::laws {

struct PositionCase {
  std::string name;
  std::function<std::unique_ptr<Position>()> make;  // of kPositionHeads heads of kPositionDim numbers
};
constexpr int64_t kPositionHeads = 3, kPositionDim = 8;

struct PositionLaw {
  const char* name;
  std::string (*check)(const PositionCase&);
};
const std::vector<PositionLaw>& position_laws();
std::vector<PositionCase> registered_positions();

}  // namespace sennit::laws
