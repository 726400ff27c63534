// mixed_edges: what its kernels on every device say about branches and pick of lists.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace ddarts {

// What a branch is if not a convolution (>= 0: which one). Outside of the unnamed namespace: functions that other files
// call take it.
enum Kind : int64_t { kSkip = -1, kMaximum = -2, kAverage = -3 };

namespace {  // per copy of a CPU kernel, on purpose

template <typename V>
std::vector<V> chosen(const std::vector<V>& from, const std::vector<int64_t>& places, int64_t offset = 0) {
  std::vector<V> found;
  for (const int64_t place : places) found.push_back(from[static_cast<size_t>(place + offset)]);
  return found;
}

inline std::vector<int64_t> counted(size_t size) {
  std::vector<int64_t> found(size);
  std::iota(found.begin(), found.end(), int64_t(0));
  return found;
}

}  // namespace
}  // namespace ddarts
