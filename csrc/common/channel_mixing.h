// Products with a matrix over channels, on tiles: what a pointwise convolution does, its gradient, and its weights as tables.
//
// Accumulators stay in registers: 4 pixels, or 4 channels, by 2 blocks, and twice that where there are 32 registers.
#pragma once

#include "channel_tiles.h"
#include "tensors.h"

#include <algorithm>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

// Pixels, or channels, side by side in registers.
#if defined(__AVX512F__)
constexpr int kTogetherInRegisters = 8;
#else
constexpr int kTogetherInRegisters = 4;
#endif

// All entries of a dense tensor of any floating dtype: where they are, or converted.
template <typename A>
struct Values {
  std::vector<A> converted;
  const A* data;
  size_t size;

  explicit Values(const Tensor& dense) : size(static_cast<size_t>(dense.numel())) {
    data = static_cast<const A*>(dense.const_data_ptr());
    if (dense.scalar_type() == kScalarType<A>) return;
    converted.resize(size);
    with_dtype(dense.scalar_type(), [&](auto tag) {
      using scalar_t = decltype(tag);
      load_row<scalar_t, A>(static_cast<const scalar_t*>(dense.const_data_ptr()), converted.data(), dense.numel());
    });
    data = converted.data();
  }
  Values(const Values&) = delete;
};

// A pointwise weight [Co,Ci,1,1] for mix, zero past the last channels: [pairs of Co blocks][Ci blocks * lanes][2 or, of a
// last block on its own, 1 vector], or with `transposed` the same of the transposed weight. A pair's part is dense, so that
// it stays in the first-level cache.
template <typename A>
Table<A> mixing_table(const Tensor& weight, bool transposed) {
  const int64_t rows = weight.size(transposed ? 0 : 1), columns = weight.size(transposed ? 1 : 0);
  constexpr int64_t lanes = kLanes<A>;
  const auto blocks = [&](int64_t channels) { return (channels + lanes - 1) / lanes; };
  const int64_t in = blocks(rows) * lanes, out = blocks(columns);
  const Values<A> values(weight);
  Table<A> table(static_cast<size_t>(in * out * lanes));
  if (in != rows || out * lanes != columns) std::fill(table.begin(), table.end(), A(0));
  for (int64_t b = 0; b < out; ++b) {
    const int64_t step = (b / 2 * 2 + 1 < out ? 2 : 1) * lanes, width = std::min(lanes, columns - b * lanes);
    A* first = table.data() + (b / 2 * 2 * in + b % 2) * lanes;
    if (transposed) {  // rows of the weight are rows here
      for (int64_t r = 0; r < rows; ++r) std::copy_n(values.data + r * columns + b * lanes, width, first + r * step);
    } else {
      for (int64_t l = 0; l < width; ++l)
        for (int64_t r = 0; r < rows; ++r) first[r * step + l] = values.data[(b * lanes + l) * rows + r];
    }
  }
  return table;
}

// out[r][j][o] = sum_i in[r][j][i] * w[i][o] for V vectors of o, P pixels at a time, columns [begin, end). Near: pixels lie
// side by side, so that one pointer serves all of them.
template <typename A, int V, int P, bool Near>
DDARTS_INLINE inline void mix_vectors(const Pixels<const A>& in, int64_t in_blocks, const Vector<A>* w, const Pixels<A>& out,
                                      int64_t rows, int64_t begin, int64_t end) {
  constexpr int L = kLanes<A>, pointers = Near ? 1 : P;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = begin; j < end; j += P) {
      Vector<A> acc[P][V] = {};
      const A* pixel[pointers];
#pragma GCC unroll 16
      for (int t = 0; t < pointers; ++t) pixel[t] = in.data + r * in.row + (j + t) * in.pixel;
      const Vector<A>* column = w;
      for (int64_t b = 0; b < in_blocks; ++b) {
#pragma GCC unroll 8
        for (int l = 0; l < L; ++l, column += V) {
#pragma GCC unroll 16
          for (int t = 0; t < P; ++t)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) acc[t][v] += (Near ? pixel[0][t * L + l] : pixel[t % pointers][l]) * column[v];
          // One pointer a pixel and one to the weights: the compiler would prepare, and spill, one for each product.
          asm("" : "+r"(column));
        }
#pragma GCC unroll 16
        for (int t = 0; t < pointers; ++t) {
          pixel[t] += in.block;
          asm("" : "+r"(pixel[t]));
        }
      }
      A* to = out.data + r * out.row + j * out.pixel;
#pragma GCC unroll 16
      for (int t = 0; t < P; ++t, to += out.pixel)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) *reinterpret_cast<Vector<A>*>(to + v * out.block) = acc[t][v];
    }
  }
}

// The same for out_blocks blocks of o; w as of mixing_table, from a pair on.
template <typename A>
void mix(const Pixels<const A>& in, int64_t in_blocks, const Vector<A>* w, const Pixels<A>& out, int64_t out_blocks,
         int64_t rows, int64_t columns) {
  constexpr int P = kTogetherInRegisters;
  // A vector alone leaves registers for twice the pixels, where they need no pointer each.
  const int64_t doubled = in.pixel == kLanes<A> ? columns / (2 * P) * 2 * P : 0;
  for (int64_t b = 0; b < out_blocks; b += 2, w += 2 * in_blocks * kLanes<A>) {
    const Pixels<A> to{out.data + b * out.block, out.block, out.row, out.pixel};
    if (b + 1 < out_blocks) {
      mix_vectors<A, 2, P, false>(in, in_blocks, w, to, rows, 0, columns);
    } else {
      mix_vectors<A, 1, 2 * P, true>(in, in_blocks, w, to, rows, 0, doubled);
      mix_vectors<A, 1, P, false>(in, in_blocks, w, to, rows, doubled, columns);
    }
  }
}

// dw[o][i] += sum_{r, j} g[r][j][o] * z[r][j][i] for all o and V vectors of i; dw_row is a stride in vectors.
template <typename A, int V>
void mix_gradient(const Pixels<const A>& g, int64_t g_blocks, const Pixels<const A>& z, int64_t rows, int64_t columns,
                  Vector<A>* dw, int64_t dw_row) {
  constexpr int L = kLanes<A>, O = std::min(L, kTogetherInRegisters);  // of one block
  for (int64_t o = 0; o < g_blocks * L; o += O, dw += O * dw_row) {
    Vector<A> acc[O][V];
#pragma GCC unroll 8
    for (int i = 0; i < O; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) acc[i][v] = dw[i * dw_row + v];
    for (int64_t r = 0; r < rows; ++r) {
      const A* grad = g.data + o / L * g.block + o % L + r * g.row;
      const A* value = z.data + r * z.row;
      for (int64_t j = 0; j < columns; ++j, grad += g.pixel, value += z.pixel)
#pragma GCC unroll 8
        for (int i = 0; i < O; ++i)
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) acc[i][v] += grad[i] * *reinterpret_cast<const Vector<A>*>(value + v * z.block);
    }
#pragma GCC unroll 8
    for (int i = 0; i < O; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) dw[i * dw_row + v] = acc[i][v];
  }
}

}  // namespace ddarts::DDARTS_CPU_COPY
