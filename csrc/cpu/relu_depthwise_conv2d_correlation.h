// The arithmetic of relu_depthwise_conv2d and relu_separable_conv2d on tiles: correlation (forward, input gradient) and
// weight gradient.
//
// Accumulators stay in registers: 8 neighbouring pixels of a block of channels (correlation), one kernel row or more of
// a filter (weight gradient); everything takes well under one load a multiply-add, of which two start every cycle.
#pragma once

#include "../common/channel_tiles.h"

namespace ddarts::DDARTS_CPU_COPY {

constexpr int64_t kPixels = 8;  // accumulators of correlate: latency 4 times 2 multiply-adds a cycle

// out[r][j] (+)= sum_{y<taps_y, x<NX} in[r*S + y*D][j*S + x*D] * w[y][x] for `rows` rows and columns in blocks of 8.
// Strides are in scalars; w is one row of NX vectors after the other.
template <typename A>
struct Correlation {
  const A* in;
  int64_t in_row, in_pixel;
  const Vector<A>* w;
  int taps_y;
  int64_t rows, columns;
  A* out;
  int64_t out_row, out_pixel;
  bool add;
  int64_t begin, end;  // rows of `in` before and from there on are zeros, which nobody reads
  bool cut;            // so are the columns before D*(NX-1)/2 and the last as many, at stride 1
  bool ahead = false;  // fetch the next row of `out` while this one is made
};

// What a correlation is compiled for: taps in a row, dilation, stride, whether its input is a tile.
template <int kTaps, int kDilation, int kStride, bool kTile>
struct Form {
  static constexpr int taps = kTaps, dilation = kDilation, stride = kStride, pad = kDilation * (kTaps - 1) / 2;
  static constexpr bool tile = kTile;
};

// Eight neighbours of a row of outputs. At the left and the right end of what is cut, the products with zeros are left out.
template <typename A, typename F, bool kLeft, bool kRight>
DDARTS_INLINE inline void correlate_pixels(const Correlation<A>& c, const A* in, const Vector<A>* w, int64_t taps_y, A* out) {
  constexpr int kFirst = kLeft ? F::pad : 0;
  constexpr int kLast = kRight ? F::pad + kPixels - 1 : (kPixels - 1) * F::stride + (F::taps - 1) * F::dilation;
  const int64_t in_row = c.in_row, in_pixel = F::tile ? kLanes<A> : c.in_pixel, out_pixel = c.out_pixel;
  Vector<A> acc[kPixels] = {};
  if (c.add) {
#pragma GCC unroll 8
    for (int t = 0; t < kPixels; ++t) acc[t] = *reinterpret_cast<const Vector<A>*>(out + t * out_pixel);
  }
  if (c.ahead) {
#pragma GCC unroll 8
    for (int t = 0; t < kPixels; ++t) __builtin_prefetch(out + c.out_row + t * out_pixel, 1, 3);
  }
  in += kFirst * in_pixel;
  for (int64_t y = 0; y < taps_y; ++y, in += F::dilation * in_row, w += F::taps) {
    Vector<A> tap[F::taps];
#pragma GCC unroll 7
    for (int x = 0; x < F::taps; ++x) tap[x] = w[x];
    // Every input is read once, for all the pixels that it belongs to.
    const A* at = in;
#pragma GCC unroll 32
    for (int i = kFirst; i <= kLast; ++i) {
      const Vector<A> value = *reinterpret_cast<const Vector<A>*>(at);
      at += in_pixel;
      // One pointer that moves: the compiler would keep, and spill, one for each pixel.
      if (!F::tile) asm("" : "+r"(at));
#pragma GCC unroll 7
      for (int x = 0; x < F::taps; ++x) {
        const int t = i - x * F::dilation;
        if (t >= 0 && t % F::stride == 0 && t / F::stride < kPixels) acc[t / F::stride] += tap[x] * value;
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kPixels; ++t) *reinterpret_cast<Vector<A>*>(out + t * out_pixel) = acc[t];
}

template <typename A, typename F>
void correlate(const Correlation<A>& c) {
  constexpr int D = F::dilation;
  constexpr bool kCuts = F::stride == 1;
  for (int64_t r = 0; r < c.rows; ++r) {
    const int64_t row = r * F::stride;
    const int64_t first = row < c.begin ? (c.begin - row + D - 1) / D : 0;
    const int64_t end = row + (c.taps_y - 1) * D >= c.end ? (c.end - row + D - 1) / D : c.taps_y;
    const A* in = c.in + (row + first * D) * c.in_row;
    const Vector<A>* w = c.w + first * F::taps;
    A* out = c.out + r * c.out_row;
    for (int64_t j = 0; j < c.columns; j += kPixels, in += kPixels * F::stride * c.in_pixel, out += kPixels * c.out_pixel) {
      const bool left = kCuts && c.cut && j == 0, right = kCuts && c.cut && j + kPixels == c.columns;
      if (left && right) {
        correlate_pixels<A, F, kCuts, kCuts>(c, in, w, end - first, out);
      } else if (left) {
        correlate_pixels<A, F, kCuts, false>(c, in, w, end - first, out);
      } else if (right) {
        correlate_pixels<A, F, false, kCuts>(c, in, w, end - first, out);
      } else {
        correlate_pixels<A, F, false, false>(c, in, w, end - first, out);
      }
    }
  }
}

template <typename A>
using CorrelateFunction = void (*)(const Correlation<A>&);

// nx: taps in a row; 1, 2 and 4 occur in the input gradient at stride 2, which has dilation and stride 1 here. Anything but
// a tile is read at stride 1 alone.
template <typename A>
CorrelateFunction<A> select_correlate(int64_t nx, int64_t dilation, int64_t stride, bool tile) {
  const auto by_step = [&](auto nx_) -> CorrelateFunction<A> {
    constexpr int NX = decltype(nx_)::value;
    if (!tile) return dilation == 1 ? correlate<A, Form<NX, 1, 1, false>> : correlate<A, Form<NX, 2, 1, false>>;
    if (dilation == 1) return stride == 1 ? correlate<A, Form<NX, 1, 1, true>> : correlate<A, Form<NX, 1, 2, true>>;
    return stride == 1 ? correlate<A, Form<NX, 2, 1, true>> : correlate<A, Form<NX, 2, 2, true>>;
  };
  switch (nx) {
    case 1: return correlate<A, Form<1, 1, 1, true>>;
    case 2: return correlate<A, Form<2, 1, 1, true>>;
    case 4: return correlate<A, Form<4, 1, 1, true>>;
    case 3: return by_step(std::integral_constant<int, 3>());
    case 5: return by_step(std::integral_constant<int, 5>());
    default: return by_step(std::integral_constant<int, 7>());
  }
}

// dw[y][x] += sum_{r, j} g[r][j] * in[r*S + y*D][j*S + x*D]. Columns of g up to the next multiple of 4 must hold zeros.
// Strides of g are in scalars, that of `in` in vectors. begin, end: as of Correlation. ahead: fetch the next row of g.
template <typename A>
struct WeightGradient {
  const A* g;
  int64_t g_row, g_pixel;
  const Vector<A>* in;
  int64_t in_row;
  int64_t rows, columns;
  int64_t begin, end;
  bool ahead;
  Vector<A>* dw;
};

// Kernel rows [y0, y0 + KR): KR*K accumulators, about 10, for 2 multiply-adds a cycle of latency 4.
template <typename A, int K, int D, int S, int KR>
DDARTS_INLINE inline void weight_gradient_rows(const WeightGradient<A>& c, int y0) {
  constexpr int P = 4;
  Vector<A> acc[KR][K] = {};
  const int64_t in_row = c.in_row, columns = c.columns, pixel = c.g_pixel;
  // The rows for which one of these kernel rows lies in the image.
  const int64_t first = std::max<int64_t>(0, (c.begin - (y0 + KR - 1) * D + S - 1) / S);
  const int64_t end = std::min(c.rows, (c.end - y0 * D + S - 1) / S);
  for (int64_t r = first; r < end; ++r) {
    const A* g = c.g + r * c.g_row;
    const Vector<A>* in = c.in + (r * S + y0 * D) * in_row;
    for (int64_t j = 0; j < columns; j += P, g += P * pixel, in += P * S) {
      Vector<A> grad[P];
#pragma GCC unroll 4
      for (int t = 0; t < P; ++t) grad[t] = *reinterpret_cast<const Vector<A>*>(g + t * pixel);
      if (y0 == 0 && c.ahead) {
#pragma GCC unroll 4
        for (int t = 0; t < P; ++t) __builtin_prefetch(g + c.g_row + t * pixel, 0, 3);
      }
#pragma GCC unroll 7
      for (int y = 0; y < KR; ++y)
#pragma GCC unroll 32
        for (int i = 0; i <= (P - 1) * S + (K - 1) * D; ++i) {
          const Vector<A> value = in[y * D * in_row + i];
          // Inputs kept for the pixels to come would drive the accumulators out of the registers.
          asm volatile("" ::: "memory");
#pragma GCC unroll 7
          for (int x = 0; x < K; ++x) {
            const int t = i - x * D;
            if (t >= 0 && t % S == 0 && t / S < P) acc[y][x] += grad[t / S] * value;
          }
        }
    }
  }
#pragma GCC unroll 7
  for (int y = 0; y < KR; ++y)
#pragma GCC unroll 7
    for (int x = 0; x < K; ++x) c.dw[(y0 + y) * K + x] += acc[y][x];
}

template <typename A, int K, int D, int S>
void weight_gradient(const WeightGradient<A>& c) {
  if constexpr (K == 3) {
    weight_gradient_rows<A, K, D, S, 3>(c, 0);
  } else if constexpr (K == 5) {
    weight_gradient_rows<A, K, D, S, 2>(c, 0);
    weight_gradient_rows<A, K, D, S, 2>(c, 2);
    weight_gradient_rows<A, K, D, S, 1>(c, 4);
  } else {
    for (int y = 0; y < K; ++y) weight_gradient_rows<A, K, D, S, 1>(c, y);
  }
}

template <typename A>
using WeightGradientFunction = void (*)(const WeightGradient<A>&);

template <typename A, int K>
WeightGradientFunction<A> select_by_step(int64_t dilation, int64_t stride) {
  if (dilation == 1) return stride == 1 ? weight_gradient<A, K, 1, 1> : weight_gradient<A, K, 1, 2>;
  return stride == 1 ? weight_gradient<A, K, 2, 1> : weight_gradient<A, K, 2, 2>;
}

template <typename A>
WeightGradientFunction<A> select_weight_gradient(int64_t k, int64_t dilation, int64_t stride) {
  if (k == 3) return select_by_step<A, 3>(dilation, stride);
  if (k == 5) return select_by_step<A, 5>(dilation, stride);
  return select_by_step<A, 7>(dilation, stride);
}

}  // namespace ddarts::DDARTS_CPU_COPY
