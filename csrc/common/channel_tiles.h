// Tiles of images for the CPU's convolutions: [rows][columns][L] blocks of L channels in the accumulation type.
//
// Every layout and dtype of a tensor is turned into this one form on the way in (channels-last: L neighbours; contiguous:
// L x 4 transposes; anything else: a gather), so that there is one arithmetic core, without bounds checks: what lies
// outside the image is stored as zeros. A tile costs a few loads and stores a pixel against 9 to 49 products a filter.
#pragma once

#include "simd.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

template <typename A>
struct VectorOf {
  typedef A type __attribute__((vector_size(kVectorBytes), aligned(alignof(A)), may_alias));
};
template <typename A>
using Vector = typename VectorOf<A>::type;
template <typename A>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

// Whether channels fill no more than half a block: the copy with vectors half as wide then has the same number of products,
// and half the memory.
inline bool half_idle(const torch::stable::Tensor& x, int64_t channels) {
  const bool wide = x.scalar_type() == torch::headeronly::ScalarType::Double;
  return 2 * channels <= (wide ? kLanes<double> : kLanes<float>);
}

constexpr size_t kCacheLine = 64;

// Tables that are read as vectors: a vector that straddles two cache lines costs two loads.
template <typename A>
struct LineAllocator {
  using value_type = A;
  template <typename B>
  struct rebind {
    using other = LineAllocator<B>;
  };
  A* allocate(size_t n) { return static_cast<A*>(::operator new(n * sizeof(A), std::align_val_t(kCacheLine))); }
  // A table of a given size begins as whatever is there.
  template <typename B>
  void construct(B* place) noexcept { ::new (static_cast<void*>(place)) B; }
  template <typename B, typename... Args>
  void construct(B* place, Args&&... args) { ::new (static_cast<void*>(place)) B(std::forward<Args>(args)...); }
  void deallocate(A* data, size_t) { ::operator delete(data, std::align_val_t(kCacheLine)); }
  bool operator==(const LineAllocator&) const = default;
};
template <typename A>
using Table = std::vector<A, LineAllocator<A>>;

// The image of one sample and one block of channels inside a tensor of any strides. lanes < L at the last channels.
template <typename T>
struct Image {
  T* data;
  int64_t channel, row, column;  // strides
  int64_t height, width;
  int lanes;
};

struct Strides {
  int64_t n, c, h, w;
};

inline Strides strides_of(const torch::stable::Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

template <typename T, int L>
inline Image<T> image_at(T* data, const Strides& s, int64_t n, int64_t block, int64_t channels, int64_t h, int64_t w) {
  const int lanes = static_cast<int>(std::min<int64_t>(L, channels - block * L));
  return {data + n * s.n + block * L * s.c, s.c, s.h, s.w, h, w, lanes};
}

// Blocks of channels by four columns change places in 16-byte quads: register l holds channels l, 4 + l, 8 + l ... of four
// pixels, and 4 x 4 transposes within the quads leave a pixel in each register.
constexpr int kColumns = 4;
typedef float Quad __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(kVectorBytes)));

template <typename T>
DDARTS_INLINE inline Quad load_quad(const T* p) {
  Quad v = {};
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(&v, p, sizeof(v));
  } else {
    load_row<T, float>(p, reinterpret_cast<float*>(&v), kColumns);
  }
  return v;
}
template <typename T>
DDARTS_INLINE inline void store_quad(const Quad& v, T* p) {
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(p, &v, sizeof(v));
  } else {
    store_row<T, float>(reinterpret_cast<const float*>(&v), p, kColumns);
  }
}

DDARTS_INLINE inline Floats join(const Quad* q) {
  if constexpr (kVectorBytes == 16) {
    return reinterpret_cast<const Floats&>(q[0]);
  } else {
    const auto first = __builtin_shufflevector(q[0], q[1], 0, 1, 2, 3, 4, 5, 6, 7);
    if constexpr (kVectorBytes == 32) {
      return reinterpret_cast<const Floats&>(first);
    } else {
      const auto second = __builtin_shufflevector(q[2], q[3], 0, 1, 2, 3, 4, 5, 6, 7);
      const auto all = __builtin_shufflevector(first, second, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      return reinterpret_cast<const Floats&>(all);
    }
  }
}

// In every quad: a, b, a, b of the values from kFirst on, or with kPairs two of a and two of b.
template <int kFirst, bool kPairs, int... I>
DDARTS_INLINE inline Floats interleave(Floats a, Floats b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(
      a, b, (I / 4 * 4 + kFirst + (kPairs ? I % 2 : I % 4 / 2) + ((kPairs ? I % 4 / 2 : I % 2) ? kLanes<float> : 0))...);
}
template <int kFirst, bool kPairs>
DDARTS_INLINE inline Floats interleave(Floats a, Floats b) {
  return interleave<kFirst, kPairs>(a, b, std::make_integer_sequence<int, kLanes<float>>());
}
DDARTS_INLINE inline void transpose_quads(Floats* r) {
  const Floats a = interleave<0, false>(r[0], r[1]), b = interleave<2, false>(r[0], r[1]);
  const Floats c = interleave<0, false>(r[2], r[3]), d = interleave<2, false>(r[2], r[3]);
  r[0] = interleave<0, true>(a, c), r[1] = interleave<2, true>(a, c);
  r[2] = interleave<0, true>(b, d), r[3] = interleave<2, true>(b, d);
}

// Four columns of the channels in use as pixels, the others zero; and back.
template <typename T>
DDARTS_INLINE inline void read_columns(const T* src, int64_t channel, int lanes, Vector<float>* out) {
  constexpr int kQuads = kLanes<float> / 4;
  Floats r[4];
#pragma GCC unroll 4
  for (int l = 0; l < 4; ++l) {
    Quad q[kQuads];
#pragma GCC unroll 4
    for (int i = 0; i < kQuads; ++i) q[i] = 4 * i + l < lanes ? load_quad(src + (4 * i + l) * channel) : Quad{};
    r[l] = join(q);
  }
  transpose_quads(r);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) out[j] = r[j];
}
template <typename T>
DDARTS_INLINE inline void write_columns(const Vector<float>* in, T* dst, int64_t channel, int lanes) {
  Floats r[4] = {in[0], in[1], in[2], in[3]};
  transpose_quads(r);
#pragma GCC unroll 4
  for (int l = 0; l < 4; ++l) {
    Quad q[kLanes<float> / 4];
    std::memcpy(q, r + l, sizeof(q));
#pragma GCC unroll 4
    for (int i = 0; i < kLanes<float> / 4; ++i)
      if (4 * i + l < lanes) store_quad(q[i], dst + (4 * i + l) * channel);
  }
}

// The first `lanes` of a block's channels, neighbours in memory; the others are zero, and are not written.
template <typename T, typename A>
DDARTS_INLINE inline Vector<A> read_part(const T* src, int lanes) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    return reinterpret_cast<Vector<A>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1), src));
  if constexpr (std::is_same_v<T, double>)
    return reinterpret_cast<Vector<A>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << lanes) - 1), src));
#endif
  Vector<A> v = {};
  load_row<T, A>(src, reinterpret_cast<A*>(&v), lanes);
  return v;
}
template <typename T, typename A>
DDARTS_INLINE inline void write_part(const Vector<A>& v, T* dst, int lanes) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(dst, static_cast<__mmask16>((1u << lanes) - 1), reinterpret_cast<__m512>(v));
    return;
  }
  if constexpr (std::is_same_v<T, double>) {
    _mm512_mask_storeu_pd(dst, static_cast<__mmask8>((1u << lanes) - 1), reinterpret_cast<__m512d>(v));
    return;
  }
#endif
  store_row<T, A>(reinterpret_cast<const A*>(&v), dst, lanes);
}

// One image row into vectors, unpadded.
template <typename T, typename A>
inline void read_row(const Image<const T>& image, int64_t row, Vector<A>* out) {
  constexpr int L = kLanes<A>;
  const T* src = image.data + row * image.row;
  int64_t j = 0;
  if (image.channel == 1) {
    if (image.lanes == L) {
      for (; j < image.width; ++j) load_row<T, A>(src + j * image.column, reinterpret_cast<A*>(out + j), L);
    } else {
      for (; j < image.width; ++j) out[j] = read_part<T, A>(src + j * image.column, image.lanes);
    }
    return;
  }
  if constexpr (std::is_same_v<A, float>) {
    if (image.column == 1) {
      if (image.lanes == L) {
        for (; j + kColumns <= image.width; j += kColumns) read_columns(src + j, image.channel, L, out + j);
      } else {
        for (; j + kColumns <= image.width; j += kColumns) read_columns(src + j, image.channel, image.lanes, out + j);
      }
    }
  }
  for (; j < image.width; ++j) {
    A* lane = reinterpret_cast<A*>(out + j);
    for (int l = 0; l < L; ++l) lane[l] = l < image.lanes ? static_cast<A>(src[l * image.channel + j * image.column]) : A(0);
  }
}

// The reverse of read_row.
template <typename T, typename A>
inline void write_row(const Image<T>& image, int64_t row, const Vector<A>* in) {
  constexpr int L = kLanes<A>;
  T* dst = image.data + row * image.row;
  int64_t j = 0;
  if (image.channel == 1) {
    if (image.lanes == L) {
      for (; j < image.width; ++j) store_row<T, A>(reinterpret_cast<const A*>(in + j), dst + j * image.column, L);
    } else {
      for (; j < image.width; ++j) write_part<T, A>(in[j], dst + j * image.column, image.lanes);
    }
    return;
  }
  if constexpr (std::is_same_v<A, float>) {
    if (image.column == 1) {
      if (image.lanes == L) {
        for (; j + kColumns <= image.width; j += kColumns) write_columns(in + j, dst + j, image.channel, L);
      } else {
        for (; j + kColumns <= image.width; j += kColumns) write_columns(in + j, dst + j, image.channel, image.lanes);
      }
    }
  }
  for (; j < image.width; ++j) {
    const A* lane = reinterpret_cast<const A*>(in + j);
    for (int l = 0; l < image.lanes; ++l) dst[l * image.channel + j * image.column] = static_cast<T>(lane[l]);
  }
}

// A tensor's memory, asked for once: every question to a tensor is a call into another library.
template <typename T>
struct View {
  T* data = nullptr;
  Strides strides = {};
  int64_t channels = 0, height = 0, width = 0;

  View() = default;
  explicit View(const torch::stable::Tensor& x)
      : data(static_cast<T*>(const_cast<void*>(x.const_data_ptr()))), strides(strides_of(x)), channels(x.size(1)),
        height(x.size(2)), width(x.size(3)) {}

  template <typename A>
  Image<T> image(int64_t n, int64_t block) const {
    return image_at<T, kLanes<A>>(data, strides, n, block, channels, height, width);
  }
};

// Pixels by channels anywhere: channel c of pixel (r, j) is data[c / L * block + r * row + j * pixel + c % L]. Tiles fit,
// and so do channels-last tensors, with L for the stride of a block.
template <typename A>
struct Pixels {
  A* data;
  int64_t block, row, pixel;
};

// Whether the tensor's pixels can be read and written as blocks of the accumulation type A, in eights of columns.
template <typename T, typename A>
inline bool in_blocks(const Strides& strides, int64_t channels, int64_t width) {
  return std::is_same_v<T, A> && strides.c == 1 && channels % kLanes<A> == 0 && width % 8 == 0;
}

// A row as vectors: `at(j)` reads, `set(j, v)` writes pixel j. Where the tensor's memory has that form it is used as it
// is, else through a buffer of `width` vectors that is filled at once (reading) or written back by `flush` (writing).
template <typename T, typename A>
struct InRow {
  const A* data;
  int64_t pixel;

  InRow(const Image<const T>& image, int64_t row, Vector<A>* buffer) {
    if constexpr (std::is_same_v<T, A>) {
      if (image.channel == 1 && image.lanes == kLanes<A>) {
        data = image.data + row * image.row, pixel = image.column;
        return;
      }
    }
    read_row<T, A>(image, row, buffer);
    data = reinterpret_cast<const A*>(buffer), pixel = kLanes<A>;
  }
  DDARTS_INLINE inline Vector<A> at(int64_t j) const { return *reinterpret_cast<const Vector<A>*>(data + j * pixel); }
};

template <typename T, typename A>
struct OutRow {
  const Image<T>& image;
  int64_t row;
  Vector<A>* buffer;
  A* data;
  int64_t pixel;

  OutRow(const Image<T>& image_, int64_t row_, Vector<A>* buffer_) : image(image_), row(row_), buffer(buffer_) {
    if constexpr (std::is_same_v<T, A>) {
      if (image.channel == 1 && image.lanes == kLanes<A>) {
        data = image.data + row * image.row, pixel = image.column, buffer = nullptr;
        return;
      }
    }
    data = reinterpret_cast<A*>(buffer), pixel = kLanes<A>;
  }
  DDARTS_INLINE inline void set(int64_t j, Vector<A> v) const { *reinterpret_cast<Vector<A>*>(data + j * pixel) = v; }
  void flush() const {
    if (buffer != nullptr) write_row<T, A>(image, row, buffer);
  }
};

// Zeros. A call of memset takes longer than the few vectors of a margin.
template <typename A>
DDARTS_INLINE inline void clear(Vector<A>* to, int64_t count) {
  for (Vector<A>* end = to + count; to != end; ++to) {
    *to = Vector<A>{};
    asm("" : "+r"(to));
  }
}

// The tiles of neighbouring blocks, one after the other: rows of `columns` vectors, `pad` of them before the image.
template <typename A>
struct Tiles {
  Vector<A>* data;
  int64_t size;  // of one tile
  int64_t columns, pad;
};

// What becomes of a pixel on its way into a tile. The ReLU keeps NaN, as torch's does; the norm is (x - mean) * rstd.
enum class Prologue { none, relu, norm_relu };

template <Prologue kPrologue, typename A>
DDARTS_INLINE inline Vector<A> prologue_of(Vector<A> x, const Vector<A>* norm) {
  const Vector<A> zero = {};
  if constexpr (kPrologue == Prologue::none) return x;
  if constexpr (kPrologue == Prologue::norm_relu) x = (x - norm[0]) * norm[1];
  return x < zero ? zero : x;
}

// tile[r][pad + j] = prologue(image[first + r][j]) for `rows` rows of `blocks` blocks of sample n, zeros outside of the
// image. norms: mean and rstd of each block. Block by block: many lines of memory are then on their way at once.
template <Prologue kPrologue, typename T, typename A>
inline void load_tiles(const View<const T>& x, int64_t n, int64_t first_block, int64_t blocks, int64_t first, int64_t rows,
                       const Tiles<A>& tiles, const Vector<A>* norms) {
  for (int64_t b = 0; b < blocks; ++b) {
    const Image<const T> image = x.template image<A>(n, first_block + b);
    Vector<A>* tile = tiles.data + b * tiles.size;
    for (int64_t r = 0; r < rows; ++r, tile += tiles.columns) {
      const int64_t row = first + r;
      if (row < 0 || row >= x.height) {
        clear<A>(tile, tiles.columns);
        continue;
      }
      clear<A>(tile, tiles.pad);
      Vector<A>* to = tile + tiles.pad;
      const InRow<T, A> in(image, row, to);
      for (int64_t j = 0; j < x.width; ++j) to[j] = prologue_of<kPrologue, A>(in.at(j), norms + 2 * b);
      clear<A>(to + x.width, tiles.columns - tiles.pad - x.width);
    }
  }
}

// Memory aligned to cache lines that a thread keeps from call to call, so that tiles cost no page faults.
template <typename A>
inline Vector<A>* scratch(int slot, int64_t vectors) {
  struct Buffer {
    void* data = nullptr;
    int64_t bytes = 0;
    ~Buffer() { std::free(data); }
  };
  static thread_local Buffer buffers[7];
  Buffer& buffer = buffers[slot];
  const int64_t line = static_cast<int64_t>(kCacheLine), bytes = (vectors * kVectorBytes + line - 1) / line * line;
  if (buffer.bytes < bytes) {
    std::free(buffer.data);
    buffer.bytes = 0;
    buffer.data = std::aligned_alloc(kCacheLine, static_cast<size_t>(bytes));
    if (buffer.data == nullptr) throw std::bad_alloc();
    buffer.bytes = bytes;
  }
  return static_cast<Vector<A>*>(buffer.data);
}

}  // namespace ddarts::DDARTS_CPU_COPY
