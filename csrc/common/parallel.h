// Loops over independent tasks on all threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace ddarts {
namespace {  // per copy, on purpose: see simd.h

// f(begin, end) over [0, count) in pieces of at least `grain` tasks, which threads take one after the other: a thread that
// the machine or the memory holds up takes fewer, and nobody waits for it. Who does what is left open, so a task must not
// depend on it.
template <typename F>
void parallel_pieces(int64_t count, int64_t grain, const F& f) {
  constexpr int64_t kPieces = 24;  // of every thread
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t piece = std::max(std::max<int64_t>(grain, 1), (count + kPieces * threads - 1) / (kPieces * threads));
  const int64_t pieces = (count + piece - 1) / piece;
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, std::min(threads, pieces), 1, [&](int64_t, int64_t) {
    for (int64_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < pieces;)
      f(p * piece, std::min(count, (p + 1) * piece));
  });
}

// f(job, task) for task < count(job) of every job, in one parallel loop: jobs may be too small for a loop of their own.
// grain: tasks that are worth a thread.
template <typename Job, typename Count, typename F>
void for_tasks(std::vector<Job>& jobs, const Count& count, const F& f, int64_t grain = 1) {
  std::vector<int64_t> first(1, 0);
  for (const Job& job : jobs) first.push_back(first.back() + count(job));
  parallel_pieces(first.back(), grain, [&](int64_t begin, int64_t end) {
    size_t j = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), begin) - first.begin()) - 1;
    for (int64_t t = begin; t < end; ++t) {
      while (t >= first[j + 1]) ++j;
      f(jobs[j], t - first[j]);
    }
  });
}

}  // namespace
}  // namespace ddarts
