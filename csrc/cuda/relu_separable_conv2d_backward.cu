// Grids and shared memory of the backward of relu_separable_conv2d; see relu_separable_conv2d_backward.cuh.
#include "relu_separable_conv2d_backward.cuh"

#include "relu_separable_conv2d_plan.h"

#include <algorithm>

namespace ddarts {
namespace {

using namespace separable;

constexpr int64_t kFilterBlocks = 528;  // 4 for each multiprocessor of a large device

int64_t input_columns(const SeparableProblem& p) { return p.stride == 1 && narrow_tiles(p) ? 8 : 16; }

template <typename A, int Most>
size_t shared_bytes(const SeparableProblem& p, bool input_grad, bool filters_grad, int columns, int output_columns) {
  size_t bytes = 2 * kThreads * sizeof(double);
  const size_t products = sizeof(A) * kProducts<A>;
  const size_t between = sizeof(A) * kTileRows * static_cast<size_t>(output_columns * kChannels<A> + 64 / static_cast<int>(sizeof(A)));
  int before;
  for (int f = 0; f < p.count; ++f) {
    const int pad = p.filters[f].dilation * (p.filters[f].k - 1) / 2;
    if (input_grad) bytes = std::max(bytes, bytes_of<A>(gradient_tile<A>(columns, p.stride, pad, before)));
    if (filters_grad)
      bytes = std::max(bytes, bytes_of<A>(input_tile<A>(filter_rows(p), output_columns, p.stride, pad)) + between +
                                  (kProductsWait<A, Most> ? products : 0));
  }
  return filters_grad ? std::max({bytes, sizeof(A) * kWarps * static_cast<size_t>((Most + 1) / 2 * Most * kChannels<A>), products}) : bytes;
}

template <typename T, int S, int P, int Most>
void launch_backward(const SeparableProblem& p, bool input_grad, const SeparableScratch& scratch, cudaStream_t stream) {
  using A = accumulate_t<T>;
  SeparablePlan plan{};
  plan.rows = filter_rows(p), plan.across = static_cast<int>(ceil_div(p.c, kChannels<A>));
  plan.chunks = extent(scratch.chunks), plan.output_blocks = extent(ceil_div(p.out_c, kOutputs<A>)), plan.columns = scratch.columns, plan.tiles = output_tiles(p, filter_rows(p));
  if (scratch.partial != nullptr) plan.filter_blocks = plan.chunks * plan.output_blocks * static_cast<unsigned>(plan.across * p.count);
  const int64_t inputs = input_grad ? separable_tiles(p) * plan.across * p.source_count : 0;
  const dim3 grid(extent(plan.filter_blocks + inputs));
  if (grid.x == 0) return;
  const size_t bytes = shared_bytes<A, Most>(p, input_grad, scratch.partial != nullptr, 2 * P, S == 2 ? 8 : 2 * P);
  with_products<T>(p, [&](auto cores) {
    DDARTS_LAUNCH((separable_backward_kernel<T, S, P, Most, decltype(cores)::value>), grid, dim3(kThreads), bytes, stream, p, plan,
                  static_cast<A*>(scratch.partial), scratch.sums);
  });
}

template <typename T, int Most>
void launch_tiles(const SeparableProblem& p, bool input_grad, const SeparableScratch& scratch, cudaStream_t stream) {
  if (p.stride == 2) {
    launch_backward<T, 2, 8, Most>(p, input_grad, scratch, stream);
  } else if (narrow_tiles(p)) {
    launch_backward<T, 1, 4, Most>(p, input_grad, scratch, stream);
  } else {
    launch_backward<T, 1, 8, Most>(p, input_grad, scratch, stream);
  }
}

template <typename T>
void join(const SeparableProblem& p, const SeparableScratch& scratch, cudaStream_t stream) {
  using A = accumulate_t<T>;
  int64_t filter_blocks = 0;
  if (scratch.partial != nullptr && p.count > 0) {
    const SeparableFilter& end = p.filters[p.count - 1];
    filter_blocks = ceil_div(end.column + (end.taps() + p.out_c) * p.c - p.filters[0].column, kJoinColumns);
  }
  const bool means = scratch.sums != nullptr && p.n > 0;
  const int64_t groups = means ? p.n / p.batch : 1, across = ceil_div(2 * p.c, kJoinColumns);
  const int64_t blocks = filter_blocks + (means ? p.source_count * groups * across : 0);
  if (blocks == 0) return;
  DDARTS_LAUNCH((separable_join_kernel<A>), dim3(extent(blocks)), join_block(), 0, stream, p, static_cast<const A*>(scratch.partial),
                scratch.chunks, scratch.columns, filter_blocks, scratch.sums, separable_tiles(p) / groups, groups, extent(across),
                static_cast<A*>(scratch.means));
}

template <typename T>
void finish(const SeparableProblem& p, const SeparableScratch& scratch, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const int64_t v = p.packets ? kPacket<A> : 1;
  const auto kernel = p.packets ? &separable_finish_kernel<T, kPacket<A>> : &separable_finish_kernel<T, 1>;
  const dim3 grid(grid_size(p.n * p.c * p.h * p.w / v, kThreads), extent(p.source_count));
  DDARTS_LAUNCH((kernel), grid, dim3(kThreads), 0, stream, p, Divisor(p.c / v), Divisor(p.h * p.w), Divisor(p.batch), p.n / p.batch,
                static_cast<const A*>(scratch.means), aligned(p.mean) && aligned(p.rstd) && aligned(scratch.means));
}

}  // namespace

int64_t separable_tiles(const SeparableProblem& p) { return p.n * ceil_div(p.h, kTileRows) * ceil_div(p.w, input_columns(p)); }

int64_t separable_chunks(DType dtype, const SeparableProblem& p, int64_t filters) {
  const int64_t channels = channels_at_once(dtype), outputs = 4 * channels;
  const int64_t blocks = std::min<int64_t>(std::max<int64_t>(filters, 1), kSeparableFilters) * ceil_div(p.c, channels) * ceil_div(p.out_c, outputs);
  return std::max<int64_t>(1, std::min(output_tiles(p, filter_rows(p)), kFilterBlocks / blocks));
}

cudaError_t separable_backward(DType dtype, const SeparableProblem& p, bool input_grad, const SeparableScratch& scratch,
                               cudaStream_t stream) {
  bool large = false;
  for (int f = 0; f < p.count; ++f) large = large || p.filters[f].k > 5;
  const bool finishes = input_grad && scratch.sums != nullptr && p.n > 0 && !p.before_norm;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    large ? launch_tiles<T, 7>(p, input_grad, scratch, stream) : launch_tiles<T, 5>(p, input_grad, scratch, stream);
    join<T>(p, scratch, stream);
    if (finishes) finish<T>(p, scratch, stream);
  })
  return cudaGetLastError();
}

}  // namespace ddarts
