// relu_separable_conv2d, backward: the blocks of the filters' gradients; see relu_separable_conv2d_backward.cuh.
#pragma once

#include "relu_separable_conv2d_mix.cuh"

namespace ddarts {
namespace separable {

constexpr int kWarps = kThreads / 32;
// Whether a thread's products wait in shared memory while it needs its registers for taps.
template <typename A, int Most>
constexpr bool kProductsWait = sizeof(A) == 4 && Most <= 5;
template <typename A>
constexpr int kProducts = kThreads * kPacket<A> * kPacket<A> / 2;  // of a block

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

// Which products a thread owns: of outputs from o on (two; of float64 one), with channels from kPacket q on, of every `teams`-th
// pixel. Made where it is needed, so that it holds no registers between.
template <typename A, bool Cores>
struct Owner {
  int q, slot, packets, teams, team, o;
  __device__ __forceinline__ explicit Owner(int outputs) {
    constexpr int O = kPacket<A> / 2;
    const int thread = anew(static_cast<int>(threadIdx.x));
    q = thread % kAcross<A>, slot = thread / kAcross<A>;
    packets = Cores ? (outputs + 15) / 16 * 8 : (outputs + O - 1) / O;
    teams = kSlots<A> / packets, team = slot / packets, o = slot % packets * O;
  }
  // Of output o + v, in shared memory [v][slot][packet].
  __device__ __forceinline__ A* place(A* waiting, int v) const { return waiting + ((v * kSlots<A> + slot) * kAcross<A> + q) * kPacket<A>; }
};

// products [2][4] += g z^T of a team's share of a tile of outputs.
template <typename T, typename A, int O, int V>
__device__ __forceinline__ void add_products(const SeparableProblem& p, const SeparableFilter& filter, const At& at, const SeparablePlan& plan,
                                             const Tile& flat, const A* between, const A* scale, int o0, int outputs,
                                             const Owner<A, false>& own, A (&products)[O][V]) {
  const Strides s = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  const T* g = static_cast<const T*>(filter.data) + static_cast<int64_t>(at.n) * s.n + (o0 + own.o) * s.c;
#pragma unroll 1
  for (int pixel = own.team; own.team < own.teams && pixel < plan.rows * flat.columns; pixel += own.teams) {
    const int i = at.top + pixel / flat.columns, j = at.left + pixel % flat.columns;
    if (i >= p.out_h || j >= p.out_w) continue;
    const T* from = g + (i * p.out_w + j) * s.pixel;
    const auto z = *reinterpret_cast<const Packed<A, V>*>(between + pixel / flat.columns * flat.pitch + pixel % flat.columns * kChannels<A> + own.q * V);
    A values[O];
    output_gradients<T>(filter, from, s.c, p.out_packets, own.o, outputs, scale, values);
#pragma unroll
    for (int v = 0; v < O; ++v)
#pragma unroll
      for (int w = 0; w < V; ++w) products[v][w] += values[v] * z.v[w];
  }
}

// Where channel l of z lies, of a pixel in this column, so that lanes of one product meet no bank twice.
__device__ __forceinline__ int moved_channel(int l, int column) { return l ^ (column & 2) << 2; }

// The same on tensor cores, by 8 pixels of a row: z as moved_channel has it. A team is warps.
template <typename T>
__device__ __forceinline__ void add_products_on_cores(const SeparableProblem& p, const SeparableFilter& filter, const At& at,
                                                      const SeparablePlan& plan, const Tile& flat, const float* between, const float* scale,
                                                      int o0, int outputs, const Owner<float, true>& own, float (&products)[2][4]) {
  const Strides s = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  const T* g = static_cast<const T*>(filter.data) + static_cast<int64_t>(at.n) * s.n + (o0 + own.o) * s.c;
  const int h = own.slot % 8, t = own.q, across = flat.columns / 8;
  float acc[2][4];  // product w % 2, place 2 v + w / 2: output o + v and channel 4t + w
#pragma unroll
  for (int v = 0; v < 2; ++v)
#pragma unroll
    for (int w = 0; w < 4; ++w) acc[w % 2][2 * v + w / 2] = products[v][w];
#pragma unroll 1
  for (int piece = own.team; own.team < own.teams && piece < plan.rows * across; piece += own.teams) {
    const int r = piece / across, column = piece % across * 8, i = at.top + r;
    if (i >= p.out_h || at.left + column >= p.out_w) continue;
    float values[2][2] = {};  // [pixel][output]
    Packed<float, 2> z[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int pixel = column + t + 4 * e, j = at.left + pixel;
      z[e] = *reinterpret_cast<const Packed<float, 2>*>(between + r * flat.pitch + pixel * 16 + moved_channel(2 * h, pixel));
      if (j < p.out_w && own.o < outputs)
        output_gradients<T>(filter, g + (i * p.out_w + j) * s.pixel, s.c, p.out_packets, own.o, outputs, scale, values[e]);
#pragma unroll
      for (int v = 0; v < 2; ++v) values[e][v] = to_tf32(values[e][v]);
    }
#pragma unroll
    for (int v = 0; v < 2; ++v) mma_tf32(acc[v], {values[0][0], values[0][1], values[1][0], values[1][1]}, {z[0].v[v], z[1].v[v]});
  }
#pragma unroll
  for (int v = 0; v < 2; ++v)
#pragma unroll
    for (int w = 0; w < 4; ++w) products[v][w] = acc[w % 2][2 * v + w / 2];
}

template <typename T, int S, int P, int Most, bool Cores>
__device__ __forceinline__ void filter_gradients(const SeparableProblem& p, unsigned block, const SeparablePlan& plan, accumulate_t<T>* taps,
                                                 accumulate_t<T>* mixing, accumulate_t<T>* scale, accumulate_t<T>* tile,
                                                 accumulate_t<T>* partial) {
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
  const int o0 = static_cast<int>(output_block) * kOutputs<A>, outputs = min(static_cast<int>(p.out_c) - o0, kOutputs<A>);
  const int half = strip.column / P;  // which rows of taps
  A of_taps[(Most + 1) / 2 * Most] = {}, products[O][V] = {};
  A* waiting = kProductsWait<A, Most> ? between + flat.rows * flat.pitch : tile;
  const auto put_products = [&] {
    const Owner<A, Cores> own(outputs);
#pragma unroll
    for (int v = 0; v < O; ++v) {
      Packed<A, V> packet;
#pragma unroll
      for (int w = 0; w < V; ++w) packet.v[w] = products[v][w];
      *reinterpret_cast<Packed<A, V>*>(own.place(waiting, v)) = packet;
    }
  };
  if constexpr (kProductsWait<A, Most>) put_products();
  load_taps<A>(taps, p, filter, first);
  const unsigned end = static_cast<unsigned>((chunk + 1) * plan.tiles / plan.chunks);
  for (unsigned index = static_cast<unsigned>(chunk * plan.tiles / plan.chunks); index < end; ++index) {
    const At at(index, p.out_h, p.out_w, plan.rows, kColumns);
    __syncthreads();  // of the tile before all is read
    fill_input<T, 2>(p, source, tile, shape, at.n, at.top * S - pad + filter.offset, at.left * S - pad + filter.offset, first);
    load_coefficients<A>(p, filter, at.n, o0, outputs, scale);
    __syncthreads();
    const bool mine = strip.inside() && strip.row < plan.rows && first + strip.lane < p.c;
    if (strip.inside()) {
      A z[P] = {};
      if (mine)
        correlate<Correlation, A, S, false, Most>(z, tile + strip.row * S * shape.pitch + strip.column * S * kC + strip.lane, shape.pitch,
                                                  filter.k, filter.dilation, taps + strip.lane, 0);
#pragma unroll
      for (int t = 0; t < P; ++t) {
        A* row = between + strip.row * flat.pitch + (strip.column + t) * kC;
        if constexpr (Cores) {
          row[moved_channel(strip.lane, t)] = to_tf32(z[t]);
        } else {
          row[strip.lane] = z[t];
        }
      }
    }
    __syncthreads();
    const Owner<A, Cores> own(outputs);
    if constexpr (kProductsWait<A, Most>) {
#pragma unroll
      for (int v = 0; v < O; ++v) {
        const auto packet = *reinterpret_cast<const Packed<A, V>*>(own.place(waiting, v));
#pragma unroll
        for (int w = 0; w < V; ++w) products[v][w] = packet.v[w];
      }
    }
    if constexpr (Cores) {
      add_products_on_cores<T>(p, filter, at, plan, flat, between, scale, o0, outputs, own, products);
    } else {
      add_products<T>(p, filter, at, plan, flat, between, scale, o0, outputs, own, products);
    }
    if constexpr (kProductsWait<A, Most>) put_products();
    if (output_block != 0 || filter.depthwise == nullptr) continue;
    __syncthreads();
    const Tile part{plan.rows, kColumns, flat.pitch};
    // Of float32 one pixel at once on tensor cores: there are no registers for two.
    mix_back<T, S == 2 || (Cores && sizeof(T) == 4) ? 1 : 2, Cores>(p, filter, between, part, mixing, scale, at.n, at.top, at.left, first);
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
  const Owner<A, Cores> own(outputs);
  __syncthreads();
  for (int i = threadIdx.x / kC; i < outputs; i += kThreads / kC) {
    A total = A(0);
    for (int k = 0; k < own.teams; ++k) total += waiting[(i % O * kSlots<A> + k * own.packets + i / O) * kC + strip.lane];
    if (first + strip.lane < p.c) partial[area * p.c + (o0 + i) * p.c + first + strip.lane] = total;
  }
}

}  // namespace separable
}  // namespace ddarts
