// mixed_edges, the gradient of x through pools and skips: with G_kind = sum over its entries of a g + s y + d,
//
//   dx (+)= [argmax is this pixel] G_max + (sum over windows of G_average / their pixels) + G_skip
//
// A block owns 8 x 16 (or 8 x 8) pixels of x and 64 bytes of channels. It computes each G on the windows of its pixels into
// shared memory, then gathers. grid: x = (tile, block of channels). Bytes: g of an entry once a kind, out of L1 and L2 but for
// the first time; each y, argmax and dx once. The gather is in the order of the windows: deterministic.
#pragma once

#include "mixed_edges.h"
#include "pool3x3.cuh"
#include "relu_separable_conv2d_tile.cuh"

namespace ddarts {
namespace edges {

using separable::At;
using separable::kChannels;
using separable::kPacket;
using separable::kThreads;
using separable::kTileRows;
using separable::load_channels;
using separable::Strides;

template <typename A>
constexpr int kAcross = kChannels<A> / kPacket<A>;

// The tile of windows: that of the outputs which the pixels of a tile of `columns` columns are in.
struct Windows {
  int rows, columns;
};
__host__ __device__ inline Windows windows_of(int stride, int columns) {
  return stride == 1 ? Windows{kTileRows + 2, columns + 2} : Windows{kTileRows / 2 + 1, columns / 2 + 1};
}

template <typename T, int S>
__global__ void __launch_bounds__(kThreads, 2) input_kernel(EdgesInput p, int columns, unsigned channel_blocks) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, V = kPacket<A>, kSlots = kThreads / kAcross<A>, Each = 3;
  DDARTS_DYNAMIC_SHARED(A, shared);
  const Windows tile = windows_of(S, columns);
  const int total = tile.rows * tile.columns;
  const At at(blockIdx.x / channel_blocks, p.h, p.w, kTileRows, columns);
  const int q = threadIdx.x % kAcross<A> * V, slot = threadIdx.x / kAcross<A>;
  const int c = static_cast<int>(blockIdx.x % channel_blocks) * kC + q, there = min(static_cast<int>(p.c) - c, V);
  const int top = at.top / S - (S == 1), left = at.left / S - (S == 1);
  const int out_h = static_cast<int>(p.out_h), out_w = static_cast<int>(p.out_w);
  const Strides s = separable::strides_of(p.channels_last, p.c, p.out_h * p.out_w);
  const int64_t groups = p.n / p.batch, group = at.n / static_cast<unsigned>(p.batch), plane = groups * p.rows * p.c;
  const int64_t image = static_cast<int64_t>(at.n) * s.n + c * s.c;
#pragma unroll 1
  for (int kind = 0; kind < 3; ++kind) {
    if (!p.has[kind]) continue;
    A* to = shared + kind * total * kC + q;
#pragma unroll 1
    for (int base = slot; base < total; base += Each * kSlots) {
      A acc[Each][V] = {}, slope[V] = {}, constant[V] = {};
      int64_t offset[Each];  // negative: outside of the image
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        const int window = base + e * kSlots, i = top + window / tile.columns, j = left + window % tile.columns;
        const bool inside = window < total && i >= 0 && i < out_h && j >= 0 && j < out_w && there > 0;
        offset[e] = inside ? image + (static_cast<int64_t>(i) * out_w + j) * s.pixel : -1;
      }
#pragma unroll 1
      for (int r = 0; r < p.count && there > 0; ++r) {
        const EdgesInput::Entry& entry = p.entry[r];
        if (entry.k[kind] < 0) continue;
        A scale[V], of_y[V], rest[V];
        const A* row = static_cast<const A*>(p.coefficients) + (group * p.rows + entry.k[kind]) * p.c + c;
        load_channels(row, 1, p.packets, 0, there, scale);
        load_channels(row + plane, 1, p.packets, 0, there, of_y);
        load_channels(row + 2 * plane, 1, p.packets, 0, there, rest);
#pragma unroll
        for (int v = 0; v < V; ++v) slope[v] += of_y[v], constant[v] += rest[v];
#pragma unroll
        for (int e = 0; e < Each; ++e) {
          A g[V] = {};
          if (offset[e] >= 0) load_channels(static_cast<const T*>(entry.grad) + offset[e], s.c, p.packets, 0, there, g);
#pragma unroll
          for (int v = 0; v < V; ++v) acc[e][v] += scale[v] * g[v];
        }
      }
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        const int window = base + e * kSlots;
        if (window >= total) break;
        Packed<A, V> packet{};
        if (offset[e] >= 0) {
          A y[V] = {}, share = A(1);
          if (p.y[kind] != nullptr) load_channels(static_cast<const T*>(p.y[kind]) + offset[e], s.c, p.packets, 0, there, y);
          if (kind == kEdgesAverage)
            share = reciprocal<A>(inside(top + window / tile.columns, S, p.h)) * reciprocal<A>(inside(left + window % tile.columns, S, p.w));
#pragma unroll
          for (int v = 0; v < V; ++v) packet.v[v] = share * (acc[e][v] + slope[v] * y[v] + constant[v]);
        }
        *reinterpret_cast<Packed<A, V>*>(to + window * kC) = packet;
      }
    }
  }
  __syncthreads();
  if (there <= 0) return;
  const Strides own = separable::strides_of(p.channels_last, p.c, p.h * p.w);
  const auto from = [&](int kind, int window) {
    return *reinterpret_cast<const Packed<A, V>*>(shared + (kind * total + window) * kC + q);
  };
#pragma unroll 1
  for (int pixel = slot; pixel < kTileRows * columns; pixel += kSlots) {
    // At stride 2 first the even columns, then the odd ones: pixels of one kind lie in as many windows.
    const int r = pixel / columns, place = S * (pixel - r * columns), j = place % columns + place / columns, h = at.top + r, w = at.left + j;
    if (h >= p.h || w >= p.w) continue;
    A sum[V] = {};
    if (p.has[kEdgesMaximum] || p.has[kEdgesAverage]) {
      constexpr int kWindows = (3 + S - 1) / S;  // that a pixel may lie in, along an axis
#pragma unroll
      for (int k = 0; k < kWindows; ++k) {
        const int y = (h + 1) / S - k, row = h + 1 - S * y;  // this pixel lies in row `row` and column `column` of the window
        if (row > 2 || y < 0 || y >= out_h) continue;
#pragma unroll
        for (int l = 0; l < kWindows; ++l) {
          const int x = (w + 1) / S - l, column = w + 1 - S * x;
          if (column > 2 || x < 0 || x >= out_w) continue;
          const int window = (y - top) * tile.columns + x - left;
          if (p.has[kEdgesMaximum]) {
            int code[V];
            load_channels(p.argmax + image + (static_cast<int64_t>(y) * out_w + x) * s.pixel, s.c, p.packets, 0, there, code);
            const auto packet = from(kEdgesMaximum, window);
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] += code[v] == 3 * row + column ? packet.v[v] : A(0);
          }
          if (p.has[kEdgesAverage]) {
            const auto packet = from(kEdgesAverage, window);
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] += packet.v[v];
          }
        }
      }
    }
    if (S == 1 && p.has[kEdgesSkip]) {
      const auto packet = from(kEdgesSkip, (h - top) * tile.columns + w - left);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += packet.v[v];
    }
    T* dx = static_cast<T*>(p.dx) + static_cast<int64_t>(at.n) * own.n + c * own.c + (static_cast<int64_t>(h) * p.w + w) * own.pixel;
    if (p.add) {
      A before[V];
      load_channels(static_cast<const T*>(dx), own.c, p.packets, 0, there, before);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += before[v];
    }
    if (p.packets) {
      store<T, V>(dx, sum);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < there) dx[v * own.c] = narrow<T>(sum[v]);
    }
  }
}

}  // namespace edges
}  // namespace ddarts
