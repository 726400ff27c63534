// Joining partial results: many rows, each with a value a column, are added up by whole blocks. A block is 32 columns
// (neighbouring, so that a warp reads 32 dense values) x 16 threads that share the rows; four rows are in flight a thread.
// Which thread adds which row, and the order in which the threads' sums are added, follow from the number of rows alone:
// deterministic. One thread a column would wait for memory once a row or four.
#pragma once

#include "cuda_compat.cuh"

namespace ddarts {
namespace {

constexpr int kJoinColumns = 32, kJoinRows = 16;

inline dim3 join_block() { return dim3(kJoinColumns, kJoinRows); }

// total[q] = sum of what add(row, total) adds for rows 0 .. rows - 1, in all threads of a column; add for columns outside
// adds nothing. All threads of the block must call it.
template <typename A, int Q, typename Add>
__device__ __forceinline__ void join_rows(int64_t rows, A (&total)[Q], const Add& add) {
  __shared__ A parts[Q][kJoinRows][kJoinColumns];
  A own[Q] = {};
#pragma unroll 4
  for (int64_t row = threadIdx.y; row < rows; row += kJoinRows) add(row, own);
  __syncthreads();  // the parts of the call before may still be read
#pragma unroll
  for (int q = 0; q < Q; ++q) parts[q][threadIdx.y][threadIdx.x] = own[q], total[q] = A(0);
  __syncthreads();
#pragma unroll
  for (int y = 0; y < kJoinRows; ++y)
#pragma unroll
    for (int q = 0; q < Q; ++q) total[q] += parts[q][y][threadIdx.x];
}

}  // namespace
}  // namespace ddarts
