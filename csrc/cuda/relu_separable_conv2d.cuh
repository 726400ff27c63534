// relu_separable_conv2d: out_f[o] = sum_c u_f[o,c] z_f[c], z_f the depthwise convolution of a = relu(x) or relu((x - mean) rstd).
//
// A block owns a tile of 8 x 16 outputs (8 x 8 where the image is narrower, the halo large or the stride 2) and 16 or 64 output
// channels. It goes through the input channels 64 bytes at a time: their tile of the input with its halo comes into shared
// memory, prologue applied on the way; each thread computes P pixels of z of one channel; z passes through shared memory into
// the 1x1 product, whose sums are in registers: on tensor cores in TF32 (always of float16 and bfloat16, whose outputs are
// rounded to as few bits or fewer; of float32 where the call allows it), else exact. z never sees
// global memory. grid: x = (sample, tile row, tile column), y = filters (`each` of them where they read one tile), z = block of
// output channels. Bytes: x once a filter (once for `each` where all channels are one piece), out of the L2 cache but for the
// first time, and every output once. Sums in float32 (float64), in the order of the channels: deterministic.
#pragma once

#include "relu_separable_conv2d_products.cuh"

namespace ddarts {
namespace separable {

// own = mean and rstd of a source's channels from `first` on, in the group of sample n, out of its moments: mean =
// sum n_t mean_t / n, then the squares about it, in float64. One block of a group writes them, too. All threads call it.
template <typename A>
__device__ __forceinline__ void join_moments(const SeparableProblem& p, const SeparableSource& source, unsigned n, int first, bool writes,
                                             A (&own)[2 * kChannels<A>]) {
  constexpr int kC = kChannels<A>, kTeams = kThreads / kC;
  __shared__ double parts[kTeams][kC];
  const int lane = threadIdx.x % kC, team = threadIdx.x / kC, c = first + lane;
  const int64_t groups = p.n / p.batch, group = n / static_cast<unsigned>(p.batch), tiles = c < p.c ? p.moment_tiles : 0;
  const A* from = static_cast<const A*>(p.moments) + (source.index * groups + group) * p.moment_tiles * 3 * p.c + c;
  const double share = 1.0 / static_cast<double>(p.batch * p.h * p.w);
  double total[2] = {};
#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {
    double sum = 0;
    for (int64_t t = team; t < tiles; t += kTeams) {
      const A* at = from + t * 3 * p.c;
      const double count = static_cast<double>(at[0]), mean = static_cast<double>(at[p.c]), delta = mean - total[0];
      sum += pass == 0 ? count * mean : static_cast<double>(at[2 * p.c]) + count * delta * delta;
    }
    __syncthreads();  // of the pass before all is read
    parts[team][lane] = sum;
    __syncthreads();
    for (int k = 0; k < kTeams; ++k) total[pass] += parts[k][lane];
    total[pass] *= share;
  }
  if (team == 0) {
    own[lane] = static_cast<A>(total[0]), own[kC + lane] = static_cast<A>(1.0 / sqrt(total[1] + p.eps));
    const int64_t row = (group * p.inputs + source.index) * p.c + c;
    if (writes && c < p.c) {
      static_cast<A*>(const_cast<void*>(p.mean))[row] = own[lane];
      static_cast<A*>(const_cast<void*>(p.rstd))[row] = own[kC + lane];
    }
  }
  __syncthreads();
}

// Moments: whether those of the outputs are wanted. Cores: whether products are on tensor cores.
template <typename T, int S, int P, int O, bool Moments, bool Cores>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<T>) == 8 ? 1 : 2)
    separable_forward_kernel(SeparableProblem p, int rows, int each) {
  using A = accumulate_t<T>;
  using Product = std::conditional_t<Cores, CoreProduct<P, O>, LaneProduct<A, P, O>>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P, kOutputs = 16 * O;
  __shared__ A taps[kMostTaps * kTapPitch<A>];
  __shared__ __align__(16) A mixing[Product::kMixing];
  __shared__ __align__(16) A between[Product::kBetween];
  __shared__ A own_scale[2 * kC];
  DDARTS_DYNAMIC_SHARED(A, tile);
  const At at(blockIdx.x, p.out_h, p.out_w, rows, kColumns);
  const Strip<A, P> strip;
  const int o0 = static_cast<int>(blockIdx.z) * kOutputs, outputs = min(static_cast<int>(p.out_c) - o0, kOutputs);
  const Strides to = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  int filled = -1;
  const int end = min(p.count, static_cast<int>(blockIdx.y + 1) * each);
  for (int f = blockIdx.y * each; f < end; ++f) {
    const SeparableFilter& filter = p.filters[f];
    const int own = filter.dilation * (filter.k - 1) / 2, pad = each > 1 ? p.pad : own;
    const Tile shape = input_tile<A>(rows, kColumns, S, pad);
    const Weight<A> pointwise{filter.pointwise, filter.pointwise_dtype};
    Product product;
    for (int first = 0; first < p.c; first += kC) {
      __syncthreads();  // of the channels and the filter before all is read
      if (p.c > kC || filled != filter.source) {
        const SeparableSource& source = p.sources[filter.source];
        const bool one = at.n % static_cast<unsigned>(p.batch) == 0 && at.top == 0 && at.left == 0 && o0 == 0 && f == source.first;
        if (p.moments != nullptr) join_moments<A>(p, source, at.n, first, one, own_scale);
        fill_input<T, (P * O > 4) ? 4 - Moments * S - (Cores && Moments && S == 1) : 2 - Moments>(p, source, tile, shape, at.n, at.top * S - pad + filter.offset, at.left * S - pad + filter.offset, first,
                      p.moments == nullptr ? nullptr : own_scale);
      }
      filled = filter.source;
      load_taps<A>(taps, p, filter, first);
      for (int i = threadIdx.x; i < kC * outputs; i += kThreads) {
        const int c = i % kC, o = i / kC;
        mixing[Product::mixing_at(c, o)] = first + c < p.c ? Product::factor(pointwise[(o0 + o) * p.c + first + c]) : A(0);
      }
      __syncthreads();
      if (strip.inside()) {
        A z[P] = {};
        const int skip = pad - own;
        if (first + strip.lane < p.c && strip.row < rows)
          correlate<Correlation, A, S, false>(z, tile + (strip.row * S + skip) * shape.pitch + (strip.column * S + skip) * kC + strip.lane,
                                              shape.pitch, filter.k, filter.dilation, taps + strip.lane, 0);
        Product::put(between, strip, z);
      }
      __syncthreads();
      product.add(between, mixing, outputs);
    }
    const OutputPlace place{to, o0, p.out_h, p.out_w, at.top, at.left, rows, outputs};
    if constexpr (Moments) {
      // Rows of moments are as blockIdx.x counts: group by group, tile by tile.
      const auto row = [&] { return static_cast<A*>(p.out_moments) + (static_cast<int64_t>(filter.row) * gridDim.x + blockIdx.x) * 3 * p.out_c + o0; };
      const int across = min(kColumns, anew(static_cast<int>(p.out_w)) - at.left), down = min(rows, anew(static_cast<int>(p.out_h)) - at.top);
      product.template moments<T>(place, down * across, between, p.out_c, row);
    }
    product.store(static_cast<T*>(filter.data) + static_cast<int64_t>(at.n) * to.n, place);
  }
}

}  // namespace separable
}  // namespace ddarts
