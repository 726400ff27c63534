// relu_separable_conv2d: out_f[o] = sum_c u_f[o,c] z_f[c], z_f the depthwise convolution of a = relu(x) or relu((x - mean) rstd).
//
// A block owns a tile of 8 x 16 outputs (8 x 8 where the image is narrower, the halo large or the stride 2) and 16 or 64 output
// channels. It goes through the input channels 64 bytes at a time: their tile of the input with its halo comes into shared
// memory, prologue applied on the way; each thread computes P pixels of z of one channel; z passes through shared memory,
// [channel][pixel], into the 1x1 product, of which a thread owns P pixels x O channels, 16 apart, in registers. z never sees
// global memory. grid: x = (sample, tile row, tile column), y = filters (`each` of them where they read one tile), z = block of
// output channels. Bytes: x once a filter (once for `each` where all channels are one piece), out of the L2 cache but for the
// first time, and every output once. Sums in float32 (float64) with exact products, in the order of the channels: deterministic.
#pragma once

#include "relu_separable_conv2d_tile.cuh"

namespace ddarts {
namespace separable {

// between[channel][pixel], rows apart such that 8 lanes of 16 bytes meet all banks.
template <typename A, int P>
constexpr int kBetweenPitch = kTileRows * 2 * P + kPacket<A>;

template <typename A, int P, int O>
__device__ __forceinline__ void mix(A (&acc)[O][P], const A* between, const A* mixing, int outputs) {
  constexpr int V = kPacket<A>;
  const int o = threadIdx.x % 16, first = threadIdx.x / 16 * P;
#pragma unroll 2
  for (int c = 0; c < kChannels<A>; ++c) {
    A z[P];
#pragma unroll
    for (int t = 0; t < P; t += V) {
      const auto packet = *reinterpret_cast<const Packed<A, V>*>(between + c * kBetweenPitch<A, P> + first + t);
#pragma unroll
      for (int v = 0; v < V; ++v) z[t + v] = packet.v[v];
    }
#pragma unroll
    for (int j = 0; j < O; ++j) {
      if (16 * j >= outputs) break;
      const A u = mixing[c * (16 * O + 1) + o + 16 * j];
#pragma unroll
      for (int t = 0; t < P; ++t) acc[j][t] += u * z[t];
    }
  }
}

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

// place() [3][Co] = number, mean and squares about the mean of a tile's outputs, as they are stored, of a block's output channels. `there`
// of a thread's P pixels are in the image; rows and columns: of the tile. All threads call it; parts is free.
template <typename T, int P, int O, typename A, typename To>
__device__ __forceinline__ void tile_moments(const A (&acc)[O][P], int there, int pixels, A* parts, int outputs, int64_t out_c, const To& place) {
  constexpr int kOfWarp = 16 * O, kWarps = kThreads / 32;
  const int thread = anew(static_cast<int>(threadIdx.x)), lane = thread % 16, warp = thread / 32;
  const A count = static_cast<A>(pixels);
  A centre[O] = {};
#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {
    __syncthreads();  // of what was in parts all is read
#pragma unroll
    for (int j = 0; j < O; ++j) {
      A sum = A(0);
#pragma unroll
      for (int t = 0; t < P; ++t) {
        const A value = static_cast<A>(widen(narrow<T>(acc[j][t]))) - centre[j];
        if (t < there) sum += pass == 0 ? value : value * value;
      }
      sum += __shfl_xor_sync(0xffffffffu, sum, 16);
      if (thread % 32 < 16) parts[warp * kOfWarp + lane + 16 * j] = sum;
    }
    __syncthreads();
    if (pass == 1 && thread >= 16) return;
    A* to = pass == 1 ? place() : nullptr;
#pragma unroll
    for (int j = 0; j < O; ++j) {
      A total = A(0);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += parts[w * kOfWarp + lane + 16 * j];
      if (pass == 0) {
        centre[j] = total / count;
      } else if (lane + 16 * j < outputs) {
        to[lane + 16 * j] = count, to[out_c + lane + 16 * j] = centre[j], to[2 * out_c + lane + 16 * j] = total;
      }
    }
  }
}

// Moments: whether those of the outputs are wanted.
template <typename T, int S, int P, int O, bool Moments>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<T>) == 8 ? 1 : 2)
    separable_forward_kernel(SeparableProblem p, int rows, int each) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P, V = kPacket<A>, kOutputs = 16 * O;
  __shared__ A taps[kMostTaps * kTapPitch<A>];
  __shared__ A mixing[kC * (kOutputs + 1)];  // [c][o], written along c
  __shared__ __align__(16) A between[kC * kBetweenPitch<A, P>];
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
    A acc[O][P] = {};
    for (int first = 0; first < p.c; first += kC) {
      __syncthreads();  // of the channels and the filter before all is read
      if (p.c > kC || filled != filter.source) {
        const SeparableSource& source = p.sources[filter.source];
        const bool one = at.n % static_cast<unsigned>(p.batch) == 0 && at.top == 0 && at.left == 0 && o0 == 0 && f == source.first;
        if (p.moments != nullptr) join_moments<A>(p, source, at.n, first, one, own_scale);
        fill_input<T, (P * O > 4) ? 4 - Moments * S : 2 - Moments>(p, source, tile, shape, at.n, at.top * S - pad + filter.offset, at.left * S - pad + filter.offset, first,
                      p.moments == nullptr ? nullptr : own_scale);
      }
      filled = filter.source;
      load_taps<A>(taps, p, filter, first);
      for (int i = threadIdx.x; i < kC * outputs; i += kThreads) {
        const int c = i % kC, o = i / kC;
        mixing[c * (kOutputs + 1) + o] = first + c < p.c ? pointwise[(o0 + o) * p.c + first + c] : A(0);
      }
      __syncthreads();
      if (strip.inside()) {
        A z[P] = {};
        const int skip = pad - own;
        if (first + strip.lane < p.c && strip.row < rows)
          correlate<Correlation, A, S, false>(z, tile + (strip.row * S + skip) * shape.pitch + (strip.column * S + skip) * kC + strip.lane,
                                              shape.pitch, filter.k, filter.dilation, taps + strip.lane, 0);
        A* row = between + strip.lane * kBetweenPitch<A, P> + strip.row * kColumns + strip.column;
#pragma unroll
        for (int t = 0; t < P; t += V) {
          Packed<A, V> packet;
#pragma unroll
          for (int v = 0; v < V; ++v) packet.v[v] = z[t + v];
          *reinterpret_cast<Packed<A, V>*>(row + t) = packet;
        }
      }
      __syncthreads();
      mix<A, P, O>(acc, between, mixing, outputs);
    }
    const int thread = anew(static_cast<int>(threadIdx.x)), part = thread / 16, row = part / 2, lane = thread % 16;  // a part is half a row
    const int64_t i = at.top + row, left = at.left + part % 2 * P;
    const bool inside = row < rows && i < p.out_h;
    if constexpr (Moments) {
      // Rows of moments are as blockIdx.x counts: group by group, tile by tile.
      const auto place = [&] { return static_cast<A*>(p.out_moments) + (static_cast<int64_t>(filter.row) * gridDim.x + blockIdx.x) * 3 * p.out_c + o0; };
      const int right = anew(static_cast<int>(p.out_w)) - at.left, down = min(rows, anew(static_cast<int>(p.out_h)) - at.top);
      const int across = min(kColumns, right), there = inside ? min(max(right - part % 2 * P, 0), P) : 0;
      tile_moments<T>(acc, there, down * across, between, outputs, p.out_c, place);
    }
    if (!inside) continue;
    T* out = static_cast<T*>(filter.data) + static_cast<int64_t>(at.n) * to.n + (o0 + lane) * to.c + (i * p.out_w + left) * to.pixel;
#pragma unroll
    for (int t = 0; t < P; ++t) {
      if (left + t >= p.out_w) break;
#pragma unroll
      for (int j = 0; j < O; ++j)
        if (lane + 16 * j < outputs) out[t * to.pixel + 16 * j * to.c] = narrow<T>(acc[j][t]);
    }
  }
}

}  // namespace separable
}  // namespace ddarts
