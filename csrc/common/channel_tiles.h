// Tiles of images for the CPU's convolutions: [rows][columns][L] blocks of L channels in the accumulation type.
//
// Every layout and dtype of a tensor is turned into this one form on the way in (channels-last: L neighbours; contiguous:
// L x L transposes; anything else: a gather), so that there is one arithmetic core, without bounds checks: what lies
// outside the image is stored as zeros. A tile costs a few loads and stores a pixel against 9 to 49 products a filter.
#pragma once

#include "simd.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

#if defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename A>
struct VectorOf {
  typedef A type __attribute__((vector_size(kVectorBytes), aligned(alignof(A)), may_alias));
};
template <typename A>
using Vector = typename VectorOf<A>::type;
template <typename A>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

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

#if defined(__AVX__)
// r[i][j] <-> r[j][i] of 8 vectors of 8 floats.
DDARTS_INLINE inline void transpose(Vector<float>* r) {
  Vector<float> t[8], s[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    s[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    s[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    s[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    s[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = __builtin_shufflevector(s[i], s[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[i + 4] = __builtin_shufflevector(s[i], s[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
constexpr bool kTransposes = true;
#else
DDARTS_INLINE inline void transpose(Vector<float>*) {}
constexpr bool kTransposes = false;
#endif

// One image row into vectors, unpadded.
template <typename T, typename A>
inline void read_row(const Image<const T>& image, int64_t row, Vector<A>* out) {
  constexpr int L = kLanes<A>;
  const T* src = image.data + row * image.row;
  int64_t j = 0;
  if (image.channel == 1 && image.lanes == L) {
    for (; j < image.width; ++j) load_row<T, A>(src + j * image.column, reinterpret_cast<A*>(out + j), L);
    return;
  }
  if constexpr (kTransposes && std::is_same_v<A, float>) {
    if (image.column == 1 && image.lanes == L) {
      for (; j + L <= image.width; j += L) {
        Vector<A> block[L];
        for (int l = 0; l < L; ++l) load_row<T, A>(src + l * image.channel + j, reinterpret_cast<A*>(block + l), L);
        transpose(block);
        for (int l = 0; l < L; ++l) out[j + l] = block[l];
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
  if (image.channel == 1 && image.lanes == L) {
    for (; j < image.width; ++j) store_row<T, A>(reinterpret_cast<const A*>(in + j), dst + j * image.column, L);
    return;
  }
  if constexpr (kTransposes && std::is_same_v<A, float>) {
    if (image.column == 1 && image.lanes == L) {
      for (; j + L <= image.width; j += L) {
        Vector<A> block[L];
        for (int l = 0; l < L; ++l) block[l] = in[j + l];
        transpose(block);
        for (int l = 0; l < L; ++l) store_row<T, A>(reinterpret_cast<const A*>(block + l), dst + l * image.channel + j, L);
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
