// Grids, warps and shared memory of the weight gradient; see relu_depthwise_conv2d_weights.cuh.
#include "relu_depthwise_conv2d_weights.cuh"

#include <algorithm>

namespace ddarts {
namespace {

using namespace depthwise;

// 8 outputs in a row where 16 would reach further beyond the image, and at stride 2, where their input is large.
int columns_of(const DepthwiseProblem& p) { return p.stride == 2 || (p.out_w - 1) % 16 < 8 ? 8 : 16; }

int packs_of(const DepthwiseProblem& p) { return (p.count + kPack - 1) / kPack; }

// Warps to filters by the number of taps, as many as there are strips at most.
template <typename A>
WeightPlan plan_of(const DepthwiseProblem& p, int columns) {
  WeightPlan plan{};
  const int strips = kTileRows * kChannels<A> / 32 * columns / kStrip;
  for (int pack = 0; pack < packs_of(p); ++pack) {
    const int count = std::min(kPack, p.count - pack * kPack);
    int parts[kPack] = {1, 1, 1, 1};
    const auto work = [&](int f) { return parts[f] < strips ? p.filters[pack * kPack + f].k * p.filters[pack * kPack + f].k * 60 / parts[f] : 0; };
    for (int spare = kWarps - count; spare > 0; --spare) {
      int most = 0;
      for (int f = 1; f < count; ++f) most = work(f) > work(most) ? f : most;
      if (work(most) > 0) ++parts[most];
    }
    int warp = 0;
    for (int f = 0; f < count; ++f)
      for (int part = 0; part < parts[f]; ++part)
        plan.warps[pack][warp++] = {static_cast<int8_t>(f), static_cast<int8_t>(part), static_cast<int8_t>(parts[f])};
  }
  return plan;
}

template <typename T, int S, int Most>
void launch(const DepthwiseProblem& p, void* partial, int64_t chunks, int64_t taps, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const int columns = columns_of(p);
  const size_t bytes = std::max(bytes_of<A>(input_tile<A>(kTileRows, columns, S, p.pad)), size_t{kWarps * Most * Most * 64});
  const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(ceil_div(p.c, kChannels<A>)), static_cast<unsigned>(packs_of(p)));
  DDARTS_LAUNCH((weight_gradient_kernel<T, S, Most>), grid, dim3(kThreads), bytes, stream, p, plan_of<A>(p, columns), columns,
                static_cast<A*>(partial), taps);
}

}  // namespace

// About 4 blocks for each multiprocessor of a large device: one tile a block at 64 samples of a search.
int64_t depthwise_weight_chunks(DType dtype, const DepthwiseProblem& p, int64_t filters) {
  const int64_t channels = 64 / (dtype == DType::float64 ? 8 : 4), packs = ceil_div(std::min<int64_t>(filters, kDepthwiseFilters), kPack);
  const int64_t tiles = p.n * ceil_div(p.out_h, kTileRows) * ceil_div(p.out_w, columns_of(p));
  return std::max<int64_t>(1, std::min(tiles, 528 / (ceil_div(p.c, channels) * packs)));
}

cudaError_t depthwise_weight_gradient(DType dtype, const DepthwiseProblem& p, void* partial, int64_t chunks, int64_t taps,
                                      cudaStream_t stream) {
  bool large = false;
  for (int f = 0; f < p.count; ++f) large = large || p.filters[f].k > 5;
  const DepthwiseFilter& end = p.filters[p.count - 1];
  const int64_t columns = (end.first + end.k * end.k - p.filters[0].first) * p.c;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const auto run = p.stride == 1 ? (large ? &launch<T, 1, 7> : &launch<T, 1, 5>) : (large ? &launch<T, 2, 7> : &launch<T, 2, 5>);
    run(p, partial, chunks, taps, stream);
    DDARTS_LAUNCH((weight_sum_kernel<A>), dim3(static_cast<unsigned>(ceil_div(columns, kJoinColumns))), join_block(), 0, stream, p,
                  static_cast<const A*>(partial), chunks, taps);
  })
  return cudaGetLastError();
}

}  // namespace ddarts
