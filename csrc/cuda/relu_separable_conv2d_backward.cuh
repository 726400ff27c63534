// relu_separable_conv2d, gradients: with g_f that of output f,
//
//   dz_f = u_f^T g_f    dx = [a > 0] sum_f (transposed depthwise of dz_f with w_f)    du_f = g_f z_f^T    dw_f = dz_f a
//
// in one launch. Its first blocks give the gradients of the filters, the others that of the input.
// Input: a block owns a tile of 8 x 2P pixels of x and 64 bytes of channels. For each filter that reads x it computes dz_f on the
// tile with its halo into shared memory, from g_f as it lies in global memory (every value is asked for by four lanes at once,
// and again by the blocks of the other channels and of neighbouring tiles: L1 and L2), and from there on all is as in
// relu_depthwise_conv2d. Filters: a block has one filter, 64 bytes of input channels, 64 output channels (32 of float64) and a
// part of the tiles of outputs. From the tile of the input it computes z, multiplies it with g (a thread owns 2 x 4 products,
// 1 x 2 of float64), then dz, and multiplies that with the input (a thread owns a
// channel and every second row of taps). Blocks add up their
// threads in order and write partial[chunk][column], which a second kernel joins: no atomics, deterministic.
// Bytes: x and g twice, dx once; what is asked for again comes out of the L2 cache.
#pragma once

#include "../common/divisor.cuh"
#include "../common/joined_rows.cuh"
#include "relu_separable_conv2d_tile.cuh"

namespace ddarts {
namespace separable {

constexpr int kWarps = kThreads / 32;
template <typename A>
constexpr int kAcross = kChannels<A> / kPacket<A>;  // packets of a block's channels
template <typename A>
constexpr int kSlots = kThreads / kAcross<A>;
template <typename A>
constexpr int kOutputs = 16 * kPacket<A>;  // output channels at once
// Whether a thread's products wait in shared memory while it needs its registers for taps.
template <typename A, int Most>
constexpr bool kProductsWait = sizeof(A) == 4 && Most <= 5;
template <typename A>
constexpr int kProducts = kThreads * kPacket<A> * kPacket<A> / 2;  // of a block

struct SeparablePlan {
  unsigned filter_blocks, chunks, output_blocks;  // chunks: of tiles of outputs
  int rows, across;                               // rows of such a tile; across: blocks of channels
  int64_t columns, tiles;                         // of outputs
};

// tile[r][j][l] = sum_o g[n,o,top + r,left + j] u[o,first + l], zero outside of the image. All threads call it; mixing and tile
// are free, and there when all threads have met once more. Each: pixels of a thread at once.
template <typename T, int Each, typename A>
__device__ __forceinline__ void mix_back(const SeparableProblem& p, const SeparableFilter& f, A* tile, const Tile& shape, A* mixing,
                                         unsigned n, int top, int left, int first) {
  constexpr int V = kPacket<A>, kC = kChannels<A>;
  const int q = threadIdx.x % kAcross<A>, slot = threadIdx.x / kAcross<A>, total = shape.rows * shape.columns;
  const int out_h = static_cast<int>(p.out_h), out_w = static_cast<int>(p.out_w);
  const Strides s = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  const T* g = static_cast<const T*>(f.data) + static_cast<int64_t>(n) * s.n;
  const Weight<A> pointwise{f.pointwise, f.pointwise_dtype};
  for (int o0 = 0; o0 < p.out_c; o0 += kOutputs<A>) {
    const int outputs = min(static_cast<int>(p.out_c) - o0, kOutputs<A>);
    if (o0 > 0) __syncthreads();
    for (int i = threadIdx.x; i < (outputs + V - 1) / V * V * kC; i += kThreads) {
      const int o = i / kC, l = i % kC;
      mixing[i] = o < outputs && first + l < p.c ? pointwise[(o0 + o) * p.c + first + l] : A(0);
    }
    __syncthreads();
    for (int base = slot; base < total; base += Each * kSlots<A>) {
      A acc[Each][V];
      const T* from[Each];
      int to[Each];
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        const int pixel = base + e * kSlots<A>, r = pixel / shape.columns, j = pixel - r * shape.columns, y = top + r, x = left + j;
        to[e] = pixel < total ? r * shape.pitch + j * kC + q * V : -1;
        const bool inside = pixel < total && y >= 0 && y < out_h && x >= 0 && x < out_w;
        from[e] = inside ? g + o0 * s.c + (y * p.out_w + x) * s.pixel : nullptr;
        Packed<A, V> before{};
        if (o0 > 0 && inside) before = *reinterpret_cast<const Packed<A, V>*>(tile + to[e]);
#pragma unroll
        for (int v = 0; v < V; ++v) acc[e][v] = before.v[v];
      }
#pragma unroll 1
      for (int o = 0; o < outputs; o += V) {
        A values[Each][V];
#pragma unroll
        for (int e = 0; e < Each; ++e) {
          if (p.out_packets) {
            Packed<T, V> packet{};
            if (from[e] != nullptr) packet = *reinterpret_cast<const Packed<T, V>*>(from[e] + o);
#pragma unroll
            for (int v = 0; v < V; ++v) values[e][v] = static_cast<A>(widen(packet.v[v]));
          } else {
#pragma unroll
            for (int v = 0; v < V; ++v)
              values[e][v] = from[e] != nullptr && o + v < outputs ? static_cast<A>(widen(from[e][(o + v) * s.c])) : A(0);
          }
        }
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const auto u = *reinterpret_cast<const Packed<A, V>*>(mixing + (o + v) * kC + q * V);
#pragma unroll
          for (int e = 0; e < Each; ++e)
#pragma unroll
            for (int w = 0; w < V; ++w) acc[e][w] += values[e][v] * u.v[w];
        }
      }
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        if (to[e] < 0) continue;
        Packed<A, V> packet;
#pragma unroll
        for (int v = 0; v < V; ++v) packet.v[v] = acc[e][v];
        *reinterpret_cast<Packed<A, V>*>(tile + to[e]) = packet;
      }
    }
  }
}

// acc[y K + x] += sum_t d[t] in[(2 y + half) D][t S + x D]: every second row of taps.
template <typename A, int K, int D, int S, int Most, int P>
__device__ __forceinline__ void add_taps(A (&acc)[(Most + 1) / 2 * Most], const A (&d)[P], const A* in, int pitch, int half) {
  constexpr int kWindow = (P - 1) * S + (K - 1) * D + 1;
  if constexpr (K <= Most) {
#pragma unroll
    for (int y = 0; y < (K + 1) / 2; ++y) {
      if (2 * y + half >= K) break;
      A window[kWindow];
#pragma unroll
      for (int j = 0; j < kWindow; ++j) window[j] = in[(2 * y + half) * D * pitch + j * kChannels<A>];
#pragma unroll
      for (int x = 0; x < K; ++x)
#pragma unroll
        for (int t = 0; t < P; ++t) acc[y * K + x] += d[t] * window[t * S + x * D];
    }
  }
}
template <int S, int Most, typename A, int P>
__device__ __forceinline__ void add_taps_of(const SeparableFilter& f, A (&acc)[(Most + 1) / 2 * Most], const A (&d)[P], const A* in, int pitch,
                                            int half) {
  switch (f.k * 2 + f.dilation) {
    case 7: return add_taps<A, 3, 1, S, Most>(acc, d, in, pitch, half);
    case 8: return add_taps<A, 3, 2, S, Most>(acc, d, in, pitch, half);
    case 11: return add_taps<A, 5, 1, S, Most>(acc, d, in, pitch, half);
    case 12: return add_taps<A, 5, 2, S, Most>(acc, d, in, pitch, half);
    case 15: return add_taps<A, 7, 1, S, Most>(acc, d, in, pitch, half);
    default: return add_taps<A, 7, 2, S, Most>(acc, d, in, pitch, half);
  }
}

// sums [I, tiles, C, 2] of dz and dz a over the tile, where given: dx is then finished by another kernel.
template <typename T, int S, int P, int Most>
__device__ __forceinline__ void input_gradient(const SeparableProblem& p, unsigned block, const SeparablePlan& plan, accumulate_t<T>* taps,
                                               accumulate_t<T>* mixing, accumulate_t<T>* tile, double* sums) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P;
  const unsigned tiles = (gridDim.x - plan.filter_blocks) / plan.across / p.source_count, index = block / plan.across % tiles;
  const SeparableSource& source = p.sources[block / plan.across / tiles];
  const int first = static_cast<int>(block % plan.across) * kC;
  const At at(index, p.h, p.w, kTileRows, kColumns);
  const Strip<A, P> strip;
  // At stride 2 neighbouring strips, halves of a warp, have rows 2 apart: 0 2 1 3 4 6 5 7.
  const int row = S == 1 ? strip.row : (strip.row & 4) | (strip.row & 1) << 1 | (strip.row >> 1 & 1);
  const int c = first + strip.lane, i = at.top + row, j = at.left + strip.column;
  const int there = min(static_cast<int>(p.w) - j, P);
  const bool mine = c < p.c && strip.inside() && i < p.h && there > 0;
  A acc[P] = {};
  for (int f = source.first; f < source.first + source.count; ++f) {
    const SeparableFilter& filter = p.filters[f];
    int before;
    const Tile shape = gradient_tile<A>(kColumns, S, filter.dilation * (filter.k - 1) / 2, before);
    __syncthreads();  // of the filter before all is read
    load_taps<A>(taps, p, filter, first);
    mix_back<T, 2>(p, filter, tile, shape, mixing, at.n, at.top / S - before, at.left / S - before, first);
    __syncthreads();
    if (!mine) continue;
    if constexpr (S == 1) {
      correlate<Correlation, A, 1, true, Most>(acc, tile + row * shape.pitch + strip.column * kC + strip.lane, shape.pitch, filter.k,
                                         filter.dilation, taps + strip.lane, 0);
    } else {
      const A* in = tile + strip.column / S * kC + strip.lane;
      if (filter.offset == 0) {
        correlate<Spreading, A, S, false, Most>(acc, in, shape.pitch, filter.k, filter.dilation, taps + strip.lane, row);
      } else if (row % 2 != 0) {  // of pixels one further
        A moved[P] = {};
        Spreading::run<A, 1, 1, S, false>(moved, in, shape.pitch, taps + strip.lane, row - 1);
#pragma unroll
        for (int t = 0; t + 1 < P; t += 2) acc[t + 1] += moved[t];
      }
    }
  }
  A sum = A(0), product = A(0);
  if (mine) {
    const Strides s = strides_of(p.channels_last, p.c, p.h * p.w);
    const int64_t offset = static_cast<int64_t>(at.n) * s.n + c * s.c + (i * p.w + j) * s.pixel;
    const T* x = static_cast<const T*>(source.x) + offset;
    T* dx = static_cast<T*>(source.dx) + offset;
    A* carry = static_cast<A*>(source.carry) + offset;
    const Affine<A> scale = affine<A>(p, source, at.n, c);
#pragma unroll
    for (int t = 0; t < P; ++t) {
      if (t >= there) break;
      A value = acc[t] + (source.add ? carry[t * s.pixel] : A(0));
      if (source.last) {
        const A a = activation(scale, static_cast<A>(widen(x[t * s.pixel])));
        if (a <= A(0)) value = A(0);
        sum += value;
        product += value * a;
      }
      if (source.last && sums == nullptr) {
        dx[t * s.pixel] = narrow<T>(value * scale.rstd);
      } else {
        carry[t * s.pixel] = value;
      }
    }
  }
  if (sums == nullptr || !source.last) return;
  __syncthreads();
  double* parts = reinterpret_cast<double*>(tile);
  parts[threadIdx.x] = static_cast<double>(sum), parts[kThreads + threadIdx.x] = static_cast<double>(product);
  __syncthreads();
  if (threadIdx.x >= 2 * kC) return;
  const int which = threadIdx.x / kC, lane = threadIdx.x % kC;
  if (first + lane >= p.c) return;
  double total = 0;
  for (int q = lane; q < kThreads; q += kC) total += parts[which * kThreads + q];
  sums[((source.index * tiles + index) * p.c + first + lane) * 2 + which] = total;
}

template <typename T, int S, int P, int Most>
__device__ __forceinline__ void filter_gradients(const SeparableProblem& p, unsigned block, const SeparablePlan& plan, accumulate_t<T>* taps,
                                                 accumulate_t<T>* mixing, accumulate_t<T>* tile, accumulate_t<T>* partial) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P, V = kPacket<A>, O = V / 2;
  const int first = static_cast<int>(block % plan.across) * kC;
  const unsigned output_block = block / plan.across % plan.output_blocks, rest = block / plan.across / plan.output_blocks;
  const SeparableFilter& filter = p.filters[rest % p.count];
  const unsigned chunk = rest / p.count;
  const SeparableSource& source = p.sources[filter.source];
  const int pad = filter.dilation * (filter.k - 1) / 2;
  const Tile shape = input_tile<A>(plan.rows, kColumns, S, pad);
  // z, then dz, of a tile of outputs: rows of lanes lie 64 bytes apart modulo 128
  const Tile flat{kTileRows, kColumns, kColumns * kC + 64 / static_cast<int>(sizeof(A))};
  A* between = tile + shape.rows * shape.pitch;
  const Strip<A, P> strip;
  const Strides s = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  const int o0 = static_cast<int>(output_block) * kOutputs<A>, outputs = min(static_cast<int>(p.out_c) - o0, kOutputs<A>), packets = (outputs + O - 1) / O;
  const int q = threadIdx.x % kAcross<A>, slot = threadIdx.x / kAcross<A>, teams = kSlots<A> / packets, team = slot / packets;
  const int o = slot % packets * O;  // of the products that this thread owns
  const int half = strip.column / P;  // which rows of taps
  A of_taps[(Most + 1) / 2 * Most] = {}, products[O][V] = {};
  A* waiting = kProductsWait<A, Most> ? between + flat.rows * flat.pitch : tile;  // [v][slot][packet]
  const auto products_at = [&](int v) { return reinterpret_cast<Packed<A, V>*>(waiting + ((v * kSlots<A> + slot) * kAcross<A> + q) * V); };
  const auto put_products = [&] {
#pragma unroll
    for (int v = 0; v < O; ++v) {
      Packed<A, V> packet;
#pragma unroll
      for (int w = 0; w < V; ++w) packet.v[w] = products[v][w];
      *products_at(v) = packet;
    }
  };
  if constexpr (kProductsWait<A, Most>) put_products();
  load_taps<A>(taps, p, filter, first);
  const unsigned end = static_cast<unsigned>((chunk + 1) * plan.tiles / plan.chunks);
  for (unsigned index = static_cast<unsigned>(chunk * plan.tiles / plan.chunks); index < end; ++index) {
    const At at(index, p.out_h, p.out_w, plan.rows, kColumns);
    __syncthreads();  // of the tile before all is read
    fill_input<T, 2>(p, source, tile, shape, at.n, at.top * S - pad + filter.offset, at.left * S - pad + filter.offset, first);
    __syncthreads();
    const bool mine = strip.inside() && strip.row < plan.rows && first + strip.lane < p.c;
    if (strip.inside()) {
      A z[P] = {};
      if (mine)
        correlate<Correlation, A, S, false, Most>(z, tile + strip.row * S * shape.pitch + strip.column * S * kC + strip.lane, shape.pitch,
                                                  filter.k, filter.dilation, taps + strip.lane, 0);
#pragma unroll
      for (int t = 0; t < P; ++t) between[strip.row * flat.pitch + (strip.column + t) * kC + strip.lane] = z[t];
    }
    __syncthreads();
    if constexpr (kProductsWait<A, Most>) {
#pragma unroll
      for (int v = 0; v < O; ++v) {
        const Packed<A, V> packet = *products_at(v);
#pragma unroll
        for (int w = 0; w < V; ++w) products[v][w] = packet.v[w];
      }
    }
    const T* g = static_cast<const T*>(filter.data) + static_cast<int64_t>(at.n) * s.n + (o0 + o) * s.c;
#pragma unroll 1
    for (int pixel = team; team < teams && pixel < plan.rows * kColumns; pixel += teams) {
      const int i = at.top + pixel / kColumns, j = at.left + pixel % kColumns;
      if (i >= p.out_h || j >= p.out_w) continue;
      const T* from = g + (i * p.out_w + j) * s.pixel;
      const auto z = *reinterpret_cast<const Packed<A, V>*>(between + pixel / kColumns * flat.pitch + pixel % kColumns * kC + q * V);
      Packed<T, O> packet{};
      if (p.out_packets) {
        packet = *reinterpret_cast<const Packed<T, O>*>(from);
      } else {
#pragma unroll
        for (int v = 0; v < O; ++v)
          if (o + v < outputs) packet.v[v] = from[v * s.c];
      }
#pragma unroll
      for (int v = 0; v < O; ++v)
#pragma unroll
        for (int w = 0; w < V; ++w) products[v][w] += static_cast<A>(widen(packet.v[v])) * z.v[w];
    }
    if constexpr (kProductsWait<A, Most>) put_products();
    if (output_block != 0 || filter.depthwise == nullptr) continue;
    __syncthreads();
    const Tile part{plan.rows, kColumns, flat.pitch};
    mix_back<T, 2>(p, filter, between, part, mixing, at.n, at.top, at.left, first);
    __syncthreads();
    if (!mine) continue;
#pragma unroll 1
    for (int column = 0; column < kColumns; column += P) {
      A d[P];
#pragma unroll
      for (int t = 0; t < P; ++t) d[t] = between[strip.row * flat.pitch + (column + t) * kC + strip.lane];
      add_taps_of<S, Most>(filter, of_taps, d, tile + strip.row * S * shape.pitch + column * S * kC + strip.lane, shape.pitch, half);
    }
  }
  partial += static_cast<int64_t>(chunk) * plan.columns + filter.column;
  const int area = filter.depthwise == nullptr ? 0 : filter.k * filter.k;
  if (output_block == 0 && area > 0) {  // [warp][tap][channel] in the place of the tile, then added up
    constexpr int kOfWarp = (Most + 1) / 2 * Most, kOfHalf = kTileRows * kC / 32;  // taps; warps
    __syncthreads();
#pragma unroll
    for (int tap = 0; tap < kOfWarp; ++tap) {
      A sum = of_taps[tap];
#pragma unroll
      for (int d = kC; d < 32; d *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
      if (threadIdx.x % 32 < kC && strip.inside()) tile[(threadIdx.x / 32 * kOfWarp + tap) * kC + strip.lane] = sum;
    }
    __syncthreads();
    for (int tap = threadIdx.x / kC; tap < area; tap += kThreads / kC) {
      const int y = tap / filter.k, from = y % 2 * kOfHalf, place = y / 2 * filter.k + tap % filter.k;
      A total = A(0);
#pragma unroll
      for (int w = 0; w < kOfHalf; ++w) total += tile[((from + w) * kOfWarp + place) * kC + strip.lane];
      if (first + strip.lane < p.c) partial[tap * p.c + first + strip.lane] = total;
    }
  }
  if constexpr (!kProductsWait<A, Most>) {
    __syncthreads();
    put_products();
  }
  __syncthreads();
  for (int i = threadIdx.x / kC; i < outputs; i += kThreads / kC) {
    A total = A(0);
    for (int k = 0; k < teams; ++k) total += waiting[(i % O * kSlots<A> + k * packets + i / O) * kC + strip.lane];
    if (first + strip.lane < p.c) partial[area * p.c + (o0 + i) * p.c + first + strip.lane] = total;
  }
}

// Most: side of the largest filter.
template <typename T, int S, int P, int Most>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<T>) == 8 || Most > 5 ? 1 : 2)
    separable_backward_kernel(SeparableProblem p, SeparablePlan plan, accumulate_t<T>* partial, double* sums) {
  using A = accumulate_t<T>;
  __shared__ A taps[Most * Most * kTapPitch<A>];
  __shared__ __align__(16) A mixing[kOutputs<A> * kChannels<A>];  // [o][c]
  DDARTS_DYNAMIC_SHARED(A, tile);
  if (blockIdx.x < plan.filter_blocks) {
    filter_gradients<T, S, S == 2 ? 4 : P, Most>(p, blockIdx.x, plan, taps, mixing, tile, partial);
  } else {
    input_gradient<T, S, P, Most>(p, blockIdx.x - plan.filter_blocks, plan, taps, mixing, tile, sums);
  }
}

// The gradients of the filters from partial [chunks, columns], and means [I,G,C,2] of the tiles' sums. A block has 32 columns;
// the first `filter_blocks` are for the filters, then `across` for each group of each source of this launch.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    separable_join_kernel(SeparableProblem p, const A* partial, int64_t chunks, int64_t columns, int64_t filter_blocks, const double* sums,
                          int64_t tiles_of_group, int64_t groups, unsigned across, double* means) {
  double total[1];
  if (blockIdx.x >= filter_blocks) {
    const unsigned block = static_cast<unsigned>(blockIdx.x - filter_blocks), row = block / across;
    const int64_t group = row % groups, at = static_cast<int64_t>(block % across) * kJoinColumns + threadIdx.x;
    const SeparableSource& source = p.sources[row / groups];
    if (!source.last) return;
    const bool mine = at < 2 * p.c;
    const double* from = sums + (source.index * groups + group) * tiles_of_group * 2 * p.c + at;
    join_rows(mine ? tiles_of_group : 0, total, [&](int64_t t, double(&sum)[1]) { sum[0] += from[t * 2 * p.c]; });
    if (threadIdx.y == 0 && mine)
      means[(source.index * groups + group) * 2 * p.c + at] = total[0] / static_cast<double>(p.batch * p.h * p.w);
    return;
  }
  const SeparableFilter& end = p.filters[p.count - 1];
  const int64_t i = p.filters[0].column + static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const bool mine = i < end.column + ((end.depthwise == nullptr ? 0 : end.k * end.k) + p.out_c) * p.c;
  join_rows(mine ? chunks : 0, total, [&](int64_t chunk, double(&sum)[1]) { sum[0] += static_cast<double>(partial[chunk * columns + i]); });
  if (threadIdx.y != 0 || !mine) return;
  int f = 0;
  while (f + 1 < p.count && p.filters[f + 1].column <= i) ++f;
  const SeparableFilter& filter = p.filters[f];
  const int64_t at = i - filter.column, area = filter.depthwise == nullptr ? 0 : filter.k * filter.k;
  if (at < area * p.c) {
    const int64_t tap = at / p.c;
    store_weight(filter.d_depthwise, filter.depthwise_dtype, (at - tap * p.c) * area + tap, total[0]);
  } else {
    store_weight(filter.d_pointwise, filter.pointwise_dtype, at - area * p.c, total[0]);
  }
}

// dx = r (dz - mean(dz) - a mean(dz a)), where dz is not zero a = xhat; else with xhat of x. V channels (V = 1: elements) a
// thread at a time. grid: y = source.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    separable_finish_kernel(SeparableProblem p, Divisor channels, Divisor pixels, Divisor batch, int64_t groups, const double* means) {
  using A = accumulate_t<T>;
  const SeparableSource& source = p.sources[blockIdx.y];
  if (!source.last) return;
  const int64_t total = p.n * p.c * p.h * p.w / V;
  for (int64_t k = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; k < total; k += static_cast<int64_t>(gridDim.x) * kThreads) {
    int64_t n, c;
    if (p.channels_last) {
      const int64_t rest = channels.divide(k);
      c = (k - rest * channels.by) * V, n = pixels.divide(rest);
    } else {
      const int64_t rest = pixels.divide(k);
      n = channels.divide(rest), c = rest - n * channels.by;
    }
    const int64_t group = batch.divide(n), row = (group * p.inputs + source.index) * p.c + c;
    const double* mean = means + ((source.index * groups + group) * p.c + c) * 2;
    const auto dz = *reinterpret_cast<const Packed<A, V>*>(static_cast<const A*>(source.carry) + k * V);
    const auto x = *reinterpret_cast<const Packed<T, V>*>(static_cast<const T*>(source.x) + k * V);
    Packed<T, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A rstd = static_cast<const A*>(p.rstd)[row + v];
      const A xhat = (static_cast<A>(widen(x.v[v])) - static_cast<const A*>(p.mean)[row + v]) * rstd;
      out.v[v] = narrow<T>(rstd * (dz.v[v] - static_cast<A>(mean[2 * v]) - xhat * static_cast<A>(mean[2 * v + 1])));
    }
    *reinterpret_cast<Packed<T, V>*>(static_cast<T*>(source.dx) + k * V) = out;
  }
}

}  // namespace separable
}  // namespace ddarts
