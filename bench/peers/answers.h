#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

// A peer of `sennit bench` in C++: answers each case on standard input with the seconds that one run of it took.

struct Product {
  std::string format;
  int64_t m, k, n;
};
using Run = std::function<void()>;

inline std::vector<float> random_numbers(int64_t count) {
  std::mt19937 bits(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = normal(bits);
  return x;
}

// `prepare` makes what a case runs, or nothing where it has no such case.
inline int answer(const std::function<Run(const Product&)>& prepare) {
  std::map<std::string, Run> prepared;
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (!prepared.count(line)) {
      std::istringstream words(line);
      std::string kind;
      Product p;
      const bool product = static_cast<bool>(words >> kind >> p.format >> p.m >> p.k >> p.n) && kind == "product";
      prepared[line] = product ? prepare(p) : Run();
      if (prepared[line]) prepared[line]();  // once unmeasured
    }
    if (!prepared[line]) {
      std::cout << "none" << std::endl;
      continue;
    }
    const auto begin = std::chrono::steady_clock::now();
    prepared[line]();
    std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() << std::endl;
  }
  return 0;
}
