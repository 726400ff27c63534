// pool3x3 on the CPU: 3x3 max and average pooling, padding 1, forward and backward.
//
// One kernel serves both layouts. A plane is H rows of W pixels of P values: channels-last has N planes with P = C,
// contiguous has N*C planes with P = 1, and a step of one pixel is a step of P values in either. Pooling is separable:
// every input row is reduced over its 3 columns once and kept in a ring of 3 rows, an output row joins 3 of them. So a
// pixel is read once for both outputs and costs 4 comparisons, not 8; the rule "greater, or NaN" is associative in row
// order, which keeps torch's argmax. Rows of the ring are in the accumulation dtype and lie in L1.
// The backward mirrors it: every output row is spread over the 3 input rows of its window once, and an input row adds up
// to 3 of them in a fixed order. Small contiguous planes are turned into channels-last ones in the first-level cache, a block
// of channels at a time: their rows are too short for vectors. Items (blocks of rows of a plane) are independent: results do not depend on threads.
#include "pool3x3.h"

#include "../common/parallel.h"
#include "../common/pool3x3_check.h"
#include "../common/tensors.h"
#include "pool3x3_planes.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {
namespace {

constexpr int kStep = kVectorBytes > 32 ? 16 : 8;  // values a step of the vector loops; buffers are padded to it
constexpr int64_t kRowsPerItem = 16;

// Sizes of one plane: in, out rows and columns, values of a pixel.
struct Plane {
  int64_t h, w, oh, ow, p, stride;
  int64_t in_row() const { return w * p; }
  int64_t out_row() const { return ow * p; }
  int64_t padded() const { return (std::max(w, ow * stride) + 3) * p + 2 * kStep; }
  int64_t count(int64_t o, int64_t size) const {  // valid pixels of a window along one axis
    return std::min(o * stride + 2, size) - std::max<int64_t>(o * stride - 1, 0);
  }
};

template <typename A>
struct Lanes {
  using index = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  typedef A value __attribute__((vector_size(sizeof(A) * kStep)));
  typedef index mask __attribute__((vector_size(sizeof(A) * kStep)));
  typedef uint8_t bytes __attribute__((vector_size(kStep)));
};

template <typename V, typename S>
inline void load(V& v, const S* from) {
  std::memcpy(&v, from, sizeof(V));
}
template <typename V, typename S>
inline void store(S* to, const V& v, int64_t count) {
  if (count >= kStep) std::memcpy(to, &v, sizeof(V));
  else std::memcpy(to, &v, static_cast<size_t>(count) * sizeof(S));
}

// A maximum and the code of where it was found, extended by a later candidate: torch's `v > max || isnan(v)`.
template <typename A>
inline void extend(typename Lanes<A>::value& best, typename Lanes<A>::mask& code,
                          const typename Lanes<A>::value& v, const typename Lanes<A>::mask& candidate) {
  const typename Lanes<A>::mask take = (v > best) | (v != v);
  best = take ? v : best;
  code = take ? candidate : code;
}

template <typename A>
struct ForwardScratch {
  using I = typename Lanes<A>::index;
  std::vector<A> values;
  std::vector<I> codes;
  A *even, *odd, *best[3], *sum[3], *none_best, *none_sum, *out;
  I *code[3], *none_code;

  explicit ForwardScratch(const Plane& g) {
    const int64_t n = g.padded();
    values.resize(static_cast<size_t>(11 * n));
    codes.resize(static_cast<size_t>(4 * n));
    A* next = values.data();
    I* next_code = codes.data();
    auto take = [&] { A* at = next; next += n; return at; };
    even = take(), odd = take(), out = take(), none_best = take(), none_sum = take();
    for (int i = 0; i < 3; ++i) best[i] = take(), sum[i] = take(), code[i] = next_code, next_code += n;
    none_code = next_code;
    std::fill_n(even, 2 * n, -std::numeric_limits<A>::infinity());  // even and odd: the padding stays
    std::fill_n(none_best, n, -std::numeric_limits<A>::infinity());
  }
};

// The 3 columns of every window in input row `x`: best value with its column, and sum.
template <typename T, typename A, bool kMax, bool kAvg>
void reduce_columns(const T* x, const Plane& g, ForwardScratch<A>& s, int slot) {
  using V = typename Lanes<A>::value;
  using M = typename Lanes<A>::mask;
  const A *left, *centre, *right;
  const int64_t p = g.p;
  if (g.stride == 1) {  // even: one pixel of padding, the row, one pixel of padding
    load_row(x, s.even + p, g.in_row());
    left = s.even, centre = s.even + p, right = s.even + 2 * p;
  } else {  // even: columns 0, 2, ..; odd: padding, columns 1, 3, .., padding
    if (p == 1) {
      for (int64_t j = 0; j < g.w / 2; ++j) {
        s.even[j] = static_cast<A>(x[2 * j]);
        s.odd[j + 1] = static_cast<A>(x[2 * j + 1]);
      }
      if (g.w % 2) s.even[g.w / 2] = static_cast<A>(x[g.w - 1]);
    } else {
      for (int64_t j = 0; j < g.w; ++j) load_row(x + j * p, (j % 2 ? s.odd + p : s.even) + j / 2 * p, p);
    }
    left = s.odd, centre = s.even, right = s.odd + p;
  }
  A *best = s.best[slot], *sum = s.sum[slot];
  auto* code = s.code[slot];
  const int64_t n = g.out_row();
  for (int64_t i = 0; i < n; i += kStep) {
    V l, c, r;
    load(l, left + i), load(c, centre + i), load(r, right + i);
    if constexpr (kAvg) {
      const V total = l + c + r;
      store(sum + i, total, kStep);
    }
    if constexpr (kMax) {
      V m = l;
      M at = {};
      extend<A>(m, at, c, M{} + 1);
      extend<A>(m, at, r, M{} + 2);
      store(best + i, m, kStep);
      store(code + i, at, kStep);
    }
  }
  const bool cut = (g.ow - 1) * g.stride + 1 >= g.w;  // the last window misses its right column
  for (int64_t i = 0; i < p; ++i) {
    // Only padding can have won column 0 here, over nothing but -inf: the first real column is the argmax.
    if constexpr (kMax) code[i] = std::max<typename Lanes<A>::index>(code[i], 1);
    if constexpr (kAvg) {
      sum[i] = centre[i] + (g.w > 1 ? right[i] : A(0));
      const int64_t last = n - p + i;
      if (cut && g.ow > 1) sum[last] = left[last] + centre[last];
    }
  }
}

template <typename T, typename A, bool kMax, bool kAvg>
void join_rows(const Plane& g, ForwardScratch<A>& s, int64_t o, T* maximum, T* average, uint8_t* argmax) {
  using V = typename Lanes<A>::value;
  using M = typename Lanes<A>::mask;
  using I = typename Lanes<A>::index;
  const int64_t top = std::max<int64_t>(o * g.stride - 1, 0), first = top - (o * g.stride - 1);
  const int64_t rows = g.count(o, g.h), n = g.out_row();
  const A *b[3], *a[3];
  const I* c[3];
  for (int64_t i = 0; i < 3; ++i) {
    const int slot = static_cast<int>((top + i) % 3);
    const bool there = i < rows;
    b[i] = there ? s.best[slot] : s.none_best;
    a[i] = there ? s.sum[slot] : s.none_sum;
    c[i] = there ? s.code[slot] : s.none_code;
  }
  if constexpr (kMax) {
    const M start = M{} + static_cast<I>(3 * first), step = M{} + 3;
    T* direct = nullptr;
    if constexpr (std::is_same_v<T, A>) direct = maximum;
    for (int64_t i = 0; i < n; i += kStep) {
      V m, v;
      M at, found;
      load(m, b[0] + i), load(at, c[0] + i), at += start;
      load(v, b[1] + i), load(found, c[1] + i), found += start + step;
      extend<A>(m, at, v, found);
      load(v, b[2] + i), load(found, c[2] + i), found += start + step + step;
      extend<A>(m, at, v, found);
      if constexpr (std::is_same_v<T, A>) store(direct + i, m, n - i);
      else store(s.out + i, m, kStep);
      store(argmax + i, __builtin_convertvector(at, typename Lanes<A>::bytes), n - i);
    }
    if constexpr (!std::is_same_v<T, A>) store_row(s.out, maximum, n);
  }
  if constexpr (kAvg) {
    const A inner = A(1) / static_cast<A>(3 * rows);
    for (int64_t i = 0; i < n; i += kStep) {
      V x, y, z;
      load(x, a[0] + i), load(y, a[1] + i), load(z, a[2] + i);
      const V mean = (x + y + z) * inner;
      store(s.out + i, mean, kStep);
    }
    for (const int64_t column : {int64_t(0), g.ow - 1}) {
      const A scale = A(1) / static_cast<A>(rows * g.count(column, g.w));
      for (int64_t i = column * g.p; i < (column + 1) * g.p; ++i) s.out[i] = (a[0][i] + a[1][i] + a[2][i]) * scale;
    }
    store_row(s.out, average, n);
  }
}

template <typename T, typename A, bool kMax, bool kAvg>
void forward_rows(const T* x, const Plane& g, ForwardScratch<A>& s, int64_t begin, int64_t end,
                                T* maximum, T* average, uint8_t* argmax) {
  int64_t next = std::max<int64_t>(begin * g.stride - 1, 0);
  for (int64_t o = begin; o < end; ++o) {
    for (; next < std::min(o * g.stride + 2, g.h); ++next)
      reduce_columns<T, A, kMax, kAvg>(x + next * g.in_row(), g, s, static_cast<int>(next % 3));
    const int64_t at = o * g.out_row();
    join_rows<T, A, kMax, kAvg>(g, s, o, kMax ? maximum + at : nullptr, kAvg ? average + at : nullptr,
                                kMax ? argmax + at : nullptr);
  }
}

template <typename A>
struct BackwardScratch {
  using I = typename Lanes<A>::index;
  std::vector<A> values;
  std::vector<I> codes;
  A *grad, *share, *spread[3][3], *none, *out;
  I* code;

  explicit BackwardScratch(const Plane& g) {
    const int64_t n = g.padded();
    values.resize(static_cast<size_t>(13 * n));  // zeros: the padding, and the gaps of stride 2, stay zero
    codes.assign(static_cast<size_t>(n), -1);
    A* next = values.data();
    auto take = [&] { A* at = next; next += n; return at; };
    grad = take(), share = take(), none = take(), out = take();
    for (auto& slot : spread)
      for (auto& row : slot) row = take();
    code = codes.data();
  }
};

// What output row `o` gives to the 3 input rows of its windows. The row lies in the buffers at its windows' centres.
template <typename T, typename A, bool kMax, bool kAvg>
void spread_row(const Plane& g, BackwardScratch<A>& s, int64_t o, const T* gm, const T* ga,
                              const uint8_t* argmax) {
  using V = typename Lanes<A>::value;
  using M = typename Lanes<A>::mask;
  const int64_t p = g.p, n = g.out_row(), rows = g.count(o, g.h);
  auto place = [&](A* to, const T* from) {
    if (g.stride == 1) load_row(from, to + p, n);
    else if (p == 1) for (int64_t j = 0; j < g.ow; ++j) to[1 + 2 * j] = static_cast<A>(from[j]);
    else for (int64_t j = 0; j < g.ow; ++j) load_row(from + j * p, to + p + 2 * j * p, p);
  };
  if constexpr (kMax) {
    place(s.grad, gm);
    if (g.stride == 1 || p > 1) {
      for (int64_t j = 0; j < (g.stride == 1 ? 1 : g.ow); ++j) {
        const int64_t count = g.stride == 1 ? n : p;
        auto* to = s.code + p + 2 * j * p;
        for (int64_t i = 0; i < count; ++i) to[i] = argmax[j * p + i];
      }
    } else {
      for (int64_t j = 0; j < n; ++j) s.code[1 + 2 * j] = argmax[j];
    }
  }
  if constexpr (kAvg) {
    place(s.share, ga);
    const int64_t last = (1 + g.stride * (g.ow - 1)) * p;  // of the last window's centre
    auto scale = [&](int64_t from, int64_t to, int64_t columns) {
      const A by = A(1) / static_cast<A>(rows * columns);
      for (int64_t i = from; i < to; ++i) s.share[i] *= by;
    };
    scale(p, 2 * p, g.count(0, g.w));
    scale(2 * p, last, 3);
    if (g.ow > 1) scale(last, last + p, g.count(g.ow - 1, g.w));
  }
  A* const* to = s.spread[o % 3];
  for (int64_t i = 0; i < g.in_row(); i += kStep) {
    V t[3] = {};
    if constexpr (kAvg) {
      V l, c, r;
      load(l, s.share + i), load(c, s.share + i + p), load(r, s.share + i + 2 * p);
      t[0] = t[1] = t[2] = l + c + r;
    }
    if constexpr (kMax) {
      for (int column = 0; column < 3; ++column) {  // this pixel is in column `column` of the window read here
        V v;
        M at;
        load(v, s.grad + i + (2 - column) * p), load(at, s.code + i + (2 - column) * p);
        for (int row = 0; row < 3; ++row) t[row] += at == M{} + (3 * row + column) ? v : V{};
      }
    }
    for (int row = 0; row < 3; ++row) store(to[row] + i, t[row], kStep);
  }
}

template <typename T, typename A, bool kMax, bool kAvg>
void backward_rows(const T* gm, const T* ga, const uint8_t* argmax, const Plane& g, BackwardScratch<A>& s,
                                 int64_t begin, int64_t end, T* dx) {
  using V = typename Lanes<A>::value;
  const int64_t n = g.in_row();
  int64_t next = begin / g.stride - (g.stride == 1 && begin > 0 ? 1 : 0);  // first output row that reaches row `begin`
  for (int64_t h = begin; h < end; ++h) {
    for (; next < std::min((h + 1) / g.stride + 1, g.oh); ++next) {
      const int64_t at = next * g.out_row();
      spread_row<T, A, kMax, kAvg>(g, s, next, kMax ? gm + at : nullptr, kAvg ? ga + at : nullptr,
                                   kMax ? argmax + at : nullptr);
    }
    const A* from[3];
    for (int64_t row = 0; row < 3; ++row) {  // row of the window in which input row h lies
      const int64_t centre = h + 1 - row, o = centre / g.stride;
      const bool there = centre >= 0 && centre % g.stride == 0 && o < g.oh;
      from[row] = there ? s.spread[o % 3][row] : s.none;
    }
    A* out = s.out;
    if constexpr (std::is_same_v<T, A>) out = dx + h * n;
    for (int64_t i = 0; i < n; i += kStep) {
      V x, y, z;
      load(x, from[0] + i), load(y, from[1] + i), load(z, from[2] + i);
      const V sum = x + y + z;
      store(out + i, sum, n - i);
    }
    if constexpr (!std::is_same_v<T, A>) store_row(out, dx + h * n, n);
  }
}

// Runs body(plane, first row, last row, scratch) over blocks of rows of all planes.
template <typename Scratch, typename Body>
void over_rows(const Plane& g, int64_t planes, int64_t rows, const Body& body) {
  const int64_t blocks = (rows + kRowsPerItem - 1) / kRowsPerItem;
  const int64_t grain = std::max<int64_t>(1, 16384 / (std::min(rows, kRowsPerItem) * g.in_row() + 1));
  parallel_pieces(planes * blocks, grain, [&](int64_t from, int64_t to) {
    Scratch scratch(g);
    for (int64_t item = from; item < to; ++item) {
      const int64_t row = item % blocks * kRowsPerItem;
      body(item / blocks, row, std::min(row + kRowsPerItem, rows), scratch);
    }
  });
}

// Planes of fewer input pixels than this are taken a block of channels at a time.
constexpr int64_t kSmallPlane = 257;

// Runs body(first plane, channels in use, scratch) over the blocks of channels of all samples.
template <typename Scratch, typename Body>
void over_blocks(const Plane& g, int64_t samples, int64_t channels, const Body& body) {
  const int64_t blocks = (channels + g.p - 1) / g.p;
  parallel_pieces(samples * blocks, std::max<int64_t>(1, 16384 / (g.h * g.in_row() + 1)), [&](int64_t from, int64_t to) {
    Scratch scratch(g);
    for (int64_t item = from; item < to; ++item) {
      const int64_t first = item % blocks * g.p;
      body(item / blocks * channels + first, static_cast<int>(std::min(g.p, channels - first)), scratch);
    }
  });
}

template <typename A>
struct BlockBuffers {
  Table<A> in, maximum, average;
  std::vector<uint8_t> argmax;

  BlockBuffers(const Plane& g, bool max, bool avg)
      : in(static_cast<size_t>(g.h * g.in_row())), maximum(static_cast<size_t>(max ? g.oh * g.out_row() : 0)),
        average(static_cast<size_t>(avg ? g.oh * g.out_row() : 0)), argmax(maximum.size()) {}
};

// One of these a thread's piece: the rows' scratch and what the planes become.
template <typename A, template <typename> typename Rows, bool kMax, bool kAvg>
struct BlockScratch : BlockBuffers<A>, Rows<A> {
  explicit BlockScratch(const Plane& g) : BlockBuffers<A>(g, kMax, kAvg), Rows<A>(g) {}
};

template <typename T, typename A, bool kMax, bool kAvg>
void forward_blocks(const T* x, int64_t samples, int64_t channels, const Plane& g, T* maximum, T* average, uint8_t* argmax) {
  using Scratch = BlockScratch<A, ForwardScratch, kMax, kAvg>;
  const int64_t pixels = g.h * g.w, out = g.oh * g.ow;
  over_blocks<Scratch>(g, samples, channels, [&](int64_t plane, int lanes, Scratch& s) {
    read_planes(x + plane * pixels, pixels, lanes, s.in.data());
    forward_rows<A, A, kMax, kAvg>(s.in.data(), g, s, 0, g.oh, s.maximum.data(), s.average.data(), s.argmax.data());
    if constexpr (kMax) {
      write_planes(s.maximum.data(), out, lanes, maximum + plane * out);
      write_byte_planes<kLanes<A>>(s.argmax.data(), out, lanes, argmax + plane * out);
    }
    if constexpr (kAvg) write_planes(s.average.data(), out, lanes, average + plane * out);
  });
}

template <typename T, typename A, bool kMax, bool kAvg>
void backward_blocks(const T* gm, const T* ga, const uint8_t* argmax, int64_t samples, int64_t channels, const Plane& g, T* dx) {
  using Scratch = BlockScratch<A, BackwardScratch, kMax, kAvg>;
  const int64_t pixels = g.h * g.w, out = g.oh * g.ow;
  over_blocks<Scratch>(g, samples, channels, [&](int64_t plane, int lanes, Scratch& s) {
    if constexpr (kMax) {
      read_planes(gm + plane * out, out, lanes, s.maximum.data());
      read_byte_planes<kLanes<A>>(argmax + plane * out, out, lanes, s.argmax.data());
    }
    if constexpr (kAvg) read_planes(ga + plane * out, out, lanes, s.average.data());
    backward_rows<A, A, kMax, kAvg>(s.maximum.data(), s.average.data(), s.argmax.data(), g, s, 0, g.h, s.in.data());
    write_planes(s.in.data(), pixels, lanes, dx + plane * pixels);
  });
}

Plane plane_of(int64_t channels, int64_t height, int64_t width, int64_t stride, bool channels_last) {
  return {height, width, (height - 1) / stride + 1, (width - 1) / stride + 1, channels_last ? channels : 1, stride};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> pool3x3(const Tensor& input, int64_t stride, bool maximum, bool average) {
  check_pool3x3(input, stride, maximum, average);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last);
  const int64_t n = x.size(0), c = x.size(1);
  const Plane g = plane_of(c, x.size(2), x.size(3), stride, last);
  const std::array<int64_t, 4> size{n, c, g.oh, g.ow};
  auto make = [&](bool asked, ScalarType type) {
    return asked ? layout::empty(x, size, type, last) : layout::table(x, {0}, type);
  };
  Tensor max_out = make(maximum, x.scalar_type()), avg_out = make(average, x.scalar_type());
  Tensor argmax = make(maximum, ScalarType::Byte);
  if (x.numel() == 0) return {max_out, avg_out, argmax};
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    using acc_t = accumulate_t<scalar_t>;
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    scalar_t* mx = maximum ? max_out.mutable_data_ptr<scalar_t>() : nullptr;
    scalar_t* av = average ? avg_out.mutable_data_ptr<scalar_t>() : nullptr;
    uint8_t* at = maximum ? argmax.mutable_data_ptr<uint8_t>() : nullptr;
    if (!last && g.h * g.w < kSmallPlane) {
      const auto blocks = maximum && average ? &forward_blocks<scalar_t, acc_t, true, true>
                          : maximum          ? &forward_blocks<scalar_t, acc_t, true, false>
                                             : &forward_blocks<scalar_t, acc_t, false, true>;
      return blocks(from, n, c, plane_of(kLanes<acc_t>, g.h, g.w, stride, true), mx, av, at);
    }
    const auto rows = maximum && average ? &forward_rows<scalar_t, acc_t, true, true>
                      : maximum          ? &forward_rows<scalar_t, acc_t, true, false>
                                         : &forward_rows<scalar_t, acc_t, false, true>;
    over_rows<ForwardScratch<acc_t>>(g, last ? n : n * c, g.oh, [&](int64_t plane, int64_t begin, int64_t end, auto& s) {
      const int64_t o = plane * g.oh * g.out_row();
      rows(from + plane * g.h * g.in_row(), g, s, begin, end, mx ? mx + o : mx, av ? av + o : av, at ? at + o : at);
    });
  });
  return {max_out, avg_out, argmax};
}

Tensor pool3x3_backward(std::optional<Tensor> grad_maximum, std::optional<Tensor> grad_average, const Tensor& positions,
                        int64_t height, int64_t width, int64_t stride, bool last) {
  check_pool3x3_backward(grad_maximum, grad_average, positions, height, width, stride);
  const Tensor& either = grad_maximum ? *grad_maximum : *grad_average;
  const int64_t n = either.size(0), c = either.size(1);
  const Plane g = plane_of(c, height, width, stride, last);
  Tensor dx = layout::empty(either, {n, c, height, width}, either.scalar_type(), last);
  if (dx.numel() == 0) return dx;
  std::optional<Tensor> gm, ga;
  if (grad_maximum) gm = layout::as(*grad_maximum, last);
  if (grad_average) ga = layout::as(*grad_average, last);
  const Tensor argmax = grad_maximum ? layout::as(positions, last) : positions;
  with_dtype(either.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    using acc_t = accumulate_t<scalar_t>;
    const scalar_t* mx = gm ? gm->const_data_ptr<scalar_t>() : nullptr;
    const scalar_t* av = ga ? ga->const_data_ptr<scalar_t>() : nullptr;
    const uint8_t* at = gm ? argmax.const_data_ptr<uint8_t>() : nullptr;
    scalar_t* out = dx.mutable_data_ptr<scalar_t>();
    if (!last && height * width < kSmallPlane) {
      const auto blocks = gm && ga ? &backward_blocks<scalar_t, acc_t, true, true>
                          : gm     ? &backward_blocks<scalar_t, acc_t, true, false>
                                   : &backward_blocks<scalar_t, acc_t, false, true>;
      return blocks(mx, av, at, n, c, plane_of(kLanes<acc_t>, height, width, stride, true), out);
    }
    const auto rows = gm && ga ? &backward_rows<scalar_t, acc_t, true, true>
                      : gm     ? &backward_rows<scalar_t, acc_t, true, false>
                               : &backward_rows<scalar_t, acc_t, false, true>;
    over_rows<BackwardScratch<acc_t>>(g, last ? n : n * c, height, [&](int64_t plane, int64_t begin, int64_t end, auto& s) {
      const int64_t o = plane * g.oh * g.out_row();
      rows(mx ? mx + o : mx, av ? av + o : av, at ? at + o : at, g, s, begin, end, out + plane * g.h * g.in_row());
    });
  });
  return dx;
}

// dx = what pool3x3_backward gives of the sums of the pools' gradients, + the sum of the others.
Tensor pool3x3_readers_backward(std::vector<Tensor> maxima, std::vector<Tensor> averages, std::vector<Tensor> others,
                                const Tensor& positions, int64_t height, int64_t width, int64_t stride, bool last) {
  check_pool3x3_readers_backward(maxima, averages, others, positions, height, width, stride);
  auto sum = [&](std::vector<Tensor> terms) -> std::optional<Tensor> {
    if (terms.empty()) return std::nullopt;
    for (Tensor& x : terms) x = layout::as(x, last);
    if (terms.size() == 1) return terms[0];
    const Tensor total = layout::like(terms[0], terms[0].scalar_type(), last);
    with_dtype(total.scalar_type(), [&](auto tag) {
      using scalar_t = decltype(tag);
      using acc_t = accumulate_t<scalar_t>;
      scalar_t* out = mutable_data<scalar_t>(total);
      std::vector<const scalar_t*> from;
      for (const Tensor& x : terms) from.push_back(data<scalar_t>(x));
      parallel_pieces(total.numel(), 16384, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          acc_t value = 0;
          for (const scalar_t* x : from) value += static_cast<acc_t>(x[i]);
          out[i] = static_cast<scalar_t>(value);
        }
      });
    });
    return total;
  };
  Tensor dx = pool3x3_backward(sum(std::move(maxima)), sum(std::move(averages)), positions, height, width, stride, last);
  if (others.empty()) return dx;
  others.insert(others.begin(), dx);
  return *sum(std::move(others));
}

}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) {
  m.impl("pool3x3", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::pool3x3));
  m.impl("pool3x3_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::pool3x3_backward));
  m.impl("pool3x3_readers_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::pool3x3_readers_backward));
}
