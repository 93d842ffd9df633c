// Ranks texts by how like the first one a model finds them: similar CHECKPOINT TEXT TEXT...
#include <sennit/sennit.h>

#include <algorithm>
#include <cmath>
#include <iostream>

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) ab += double(a[i]) * b[i], aa += double(a[i]) * a[i], bb += double(b[i]) * b[i];
  return ab / std::sqrt(aa * bb);
}

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: similar CHECKPOINT TEXT TEXT...\n";
    return 2;
  }
  try {
    const auto model = sennit::TextModel::load(argv[1]);
    const auto first = model.embed(argv[2]);
    std::vector<std::pair<double, std::string>> ranked;
    for (int i = 3; i < argc; ++i) ranked.push_back({cosine(first, model.embed(argv[i])), argv[i]});
    std::sort(ranked.rbegin(), ranked.rend());
    for (const auto& [likeness, text] : ranked) std::cout << likeness << "  " << text << "\n";
  } catch (const sennit::Error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
