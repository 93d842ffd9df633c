#pragma once
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "model/model.h"

// Which blocks of a model need to see everything, after Zhang et al., "Efficient Long-Range Transformers: You Need to
// Attend More, but Not Necessarily at Every Layer" (MASFormer, arXiv:2310.12442): full attention in a few blocks,
// windows in the rest.
namespace sennit::measure {

// The blocks of exact attention without a window.
std::vector<size_t> full_blocks(const ModelSpec& spec);

// The same model, of the same weights in memory, with a window in those of `blocks` that are not in `full`. Throws
// Error where weights are quantized.
std::unique_ptr<Model> with_windows(Model& model, const std::vector<size_t>& blocks, const std::set<size_t>& full,
                                    int64_t window);

struct Placement {
  std::set<size_t> full;  // the others have windows
  double loss;
};
// From windows everywhere on, what each next block left full takes from the loss most, up to `most` blocks or until
// nothing is lost against `goal`. The first is the placement of none.
std::vector<Placement> place_full_blocks(const std::vector<size_t>& blocks, size_t most, double goal,
                                         const std::function<double(const std::set<size_t>& full)>& loss);

}  // namespace sennit::measure
