// The tiles of mixed_sum on the CPU and the four loops over them. Included once per instruction set by the files of mixed_sum.
//
// Both layouts are cut into the same thing: a Block of rows of 16 lanes. Channels-last [G][rows][C]: lanes are channels
// (16 of them; a C that is no multiple of 16 is folded, several rows side by side, where the rows allow it). Contiguous
// [G][B][C][HW]: lanes are 16 neighbouring pixels of one channel, a segment for every image. A block has at most 4096
// values, so that 4 bytes times that stays in the first-level cache between the visits of one pass.
#pragma once

#include "../common/simd.h"

namespace ddarts::DDARTS_CPU_COPY {

constexpr int kLanes = 16;
constexpr int64_t kTile = 4096;
constexpr int kTogether = 4;  // branches that one loop reads side by side

struct Block {
  int64_t segments, segment_stride;
  int64_t rows, row_stride;
  int lanes;  // in use of the 16
  int tail;   // lanes of one more row at the end of every segment
  int64_t slots() const { return segments * (rows + (tail ? 1 : 0)); }
};

using Full = std::integral_constant<int, kLanes>;

// f(0), f(1), ... as constants: the compiler keeps arrays of registers in registers only where no loop indexes them.
template <typename F, int... I>
DDARTS_INLINE inline void unroll(const F& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>()), ...);
}
template <int N, typename F>
DDARTS_INLINE inline void unroll(const F& f) {
  unroll(f, std::make_integer_sequence<int, N>());
}

// 16 values of the accumulation type in registers of 32 bytes, or 64 where there are any.
constexpr int kRegisterBytes = kVectorBytes > 32 ? kVectorBytes : 32;
template <typename A>
struct Lanes {
  static constexpr int kWidth = kRegisterBytes / sizeof(A), kCount = kLanes / kWidth;
  typedef A Register __attribute__((vector_size(kRegisterBytes)));
  typedef A Unaligned __attribute__((vector_size(kRegisterBytes), aligned(sizeof(A)), may_alias));
  Register v[kCount];
};

// f(i) for every register of a Lanes<A>
template <typename A, typename F>
DDARTS_INLINE inline void each(const F& f) {
  unroll<Lanes<A>::kCount>(f);
}

template <typename A>
DDARTS_INLINE inline Lanes<A> load_lanes(const A* p) {
  Lanes<A> out;
  each<A>([&](auto i) DDARTS_INLINE { out.v[i] = *reinterpret_cast<const typename Lanes<A>::Unaligned*>(p + i * Lanes<A>::kWidth); });
  return out;
}
template <typename A>
DDARTS_INLINE inline void store_lanes(A* p, const Lanes<A>& x) {
  each<A>([&](auto i) DDARTS_INLINE { *reinterpret_cast<typename Lanes<A>::Unaligned*>(p + i * Lanes<A>::kWidth) = x.v[i]; });
}
template <typename A>
DDARTS_INLINE inline Lanes<A> zero_lanes() {
  Lanes<A> out;
  each<A>([&](auto i) DDARTS_INLINE { out.v[i] = typename Lanes<A>::Register{}; });
  return out;
}

template <typename A, typename T>
DDARTS_INLINE inline Lanes<A> read(const T* p, Full) {
  if constexpr (std::is_same_v<T, A>) {
    return load_lanes<A>(p);
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16> && std::is_same_v<A, float>) {
    typedef uint16_t Narrow __attribute__((vector_size(kRegisterBytes / 2)));
    typedef uint32_t Wide __attribute__((vector_size(kRegisterBytes)));
    Lanes<A> out;
    each<A>([&](auto i) DDARTS_INLINE {
      Narrow bits;
      std::memcpy(&bits, p + Lanes<A>::kWidth * i, sizeof(bits));
      out.v[i] = reinterpret_cast<typename Lanes<A>::Register>(__builtin_convertvector(bits, Wide) << 16);
    });
    return out;
  } else {
    alignas(kRegisterBytes) A row[kLanes];
    load_row(p, row, kLanes);
    return load_lanes<A>(row);
  }
}
template <typename A, typename T>
DDARTS_INLINE inline Lanes<A> read(const T* p, int lanes) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float> && std::is_same_v<A, float>) {
    const auto mask = static_cast<__mmask16>((1u << lanes) - 1);
    return {{reinterpret_cast<typename Lanes<A>::Register>(_mm512_maskz_loadu_ps(mask, p))}};
  }
#endif
  alignas(kRegisterBytes) A row[kLanes] = {};
  load_row(p, row, lanes);
  return load_lanes<A>(row);
}
template <typename A, typename T, typename Count>
DDARTS_INLINE inline void write(T* p, const Lanes<A>& x, Count lanes) {
  if constexpr (std::is_same_v<T, A> && std::is_same_v<Count, Full>) {
    store_lanes<A>(p, x);
#if defined(__AVX512F__)
  } else if constexpr (std::is_same_v<T, float> && std::is_same_v<A, float>) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << lanes) - 1), reinterpret_cast<__m512>(x.v[0]));
#endif
  } else {
    alignas(kRegisterBytes) A row[kLanes];
    store_lanes<A>(row, x);
    store_row(row, p, lanes);
  }
}

// f(offset of the row in the tensor, index of the row in the block, lanes in use)
template <typename F>
DDARTS_INLINE inline void for_rows(const Block& b, const F& f) {
  int64_t slot = 0;
  for (int64_t s = 0; s < b.segments; ++s) {
    int64_t offset = s * b.segment_stride;
    if (b.lanes == kLanes) {
      for (int64_t r = 0; r < b.rows; ++r, offset += b.row_stride) f(offset, slot++, Full());
    } else {
      for (int64_t r = 0; r < b.rows; ++r, offset += b.row_stride) f(offset, slot++, b.lanes);
    }
    if (b.tail) f(offset, slot++, b.tail);
  }
}

// Sums over the rows of `value(row, lanes)`, four rows in flight to hide the latency of an addition.
template <typename A, typename T, typename F>
DDARTS_INLINE inline Lanes<A> sum_rows(const T* x, const Block& b, const F& value) {
  Lanes<A> sum[4];
  unroll<4>([&](auto u) DDARTS_INLINE { sum[u] = zero_lanes<A>(); });
  const auto add = [&](Lanes<A>& into, const T* row, auto lanes) DDARTS_INLINE {
    const Lanes<A> v = value(read<A>(row, lanes), lanes);
    each<A>([&](auto i) DDARTS_INLINE { into.v[i] += v.v[i]; });
  };
  for (int64_t s = 0; s < b.segments; ++s) {
    const T* row = x + s * b.segment_stride;
    int64_t r = 0;
    if (b.lanes == kLanes) {
      for (; r + 4 <= b.rows; r += 4, row += 4 * b.row_stride)
        unroll<4>([&](auto u) DDARTS_INLINE { add(sum[u], row + u * b.row_stride, Full()); });
      for (; r < b.rows; ++r, row += b.row_stride) add(sum[0], row, Full());
    } else {
      for (; r < b.rows; ++r, row += b.row_stride) add(sum[0], row, b.lanes);
    }
    if (b.tail) add(sum[0], row, b.tail);
  }
  each<A>([&](auto i) DDARTS_INLINE { sum[0].v[i] = (sum[0].v[i] + sum[1].v[i]) + (sum[2].v[i] + sum[3].v[i]); });
  return sum[0];
}

// Values that fell on a lane.
inline double lane_values(const Block& b, int lane) {
  return static_cast<double>(b.segments * (b.rows + (lane < b.tail ? 1 : 0)));
}

// Mean of every lane and sum of squares about it: two visits, the second from the first-level cache.
template <typename A, typename T>
inline void block_moments(const T* x, const Block& b, A* mean, A* squares) {
  Lanes<A> centre = sum_rows<A>(x, b, [](const Lanes<A>& v, auto) DDARTS_INLINE { return v; });
  store_lanes<A>(mean, centre);
  for (int l = 0; l < kLanes; ++l) mean[l] /= static_cast<A>(lane_values(b, l) > 0 ? lane_values(b, l) : 1.0);
  centre = load_lanes<A>(mean);
  const Lanes<A> sum = sum_rows<A>(x, b, [&](Lanes<A> v, auto lanes) DDARTS_INLINE {
    each<A>([&](auto i) DDARTS_INLINE { v.v[i] -= centre.v[i]; });
    each<A>([&](auto i) DDARTS_INLINE { v.v[i] *= v.v[i]; });
    if constexpr (!std::is_same_v<decltype(lanes), Full>) {
      alignas(kRegisterBytes) A masked[kLanes];
      store_lanes<A>(masked, v);
      for (int l = lanes; l < kLanes; ++l) masked[l] = A(0);
      v = load_lanes<A>(masked);
    }
    return v;
  });
  store_lanes<A>(squares, sum);
}

// total[slot] += sum_n scale_n x_n over N branches of one dtype; `total` is the block, row after row of 16 lanes.
template <int N, typename A, typename T>
inline void block_mix(const T* const* x, const Block& b, const A (*scale)[kLanes], A* total) {
  Lanes<A> a[N];
  unroll<N>([&](auto n) DDARTS_INLINE { a[n] = load_lanes<A>(scale[n]); });
  for_rows(b, [&](int64_t offset, int64_t slot, auto lanes) DDARTS_INLINE {
    Lanes<A> sum = load_lanes<A>(total + slot * kLanes);
    unroll<N>([&](auto n) DDARTS_INLINE {
      const Lanes<A> v = read<A>(x[n] + offset, lanes);
      each<A>([&](auto i) DDARTS_INLINE { sum.v[i] += a[n].v[i] * v.v[i]; });
    });
    store_lanes<A>(total + slot * kLanes, sum);
  });
}

// product_n = sum over rows of g (x_n - mean_n), per lane; `g` is the block in the accumulation type, 0 in unused lanes.
template <int N, typename A, typename T>
inline void block_products(const A* g, const T* const* x, const Block& b, const A (*mean)[kLanes], A (*product)[kLanes]) {
  Lanes<A> m[N], sum[N];
  unroll<N>([&](auto n) DDARTS_INLINE {
    m[n] = load_lanes<A>(mean[n]);
    sum[n] = zero_lanes<A>();
  });
  for_rows(b, [&](int64_t offset, int64_t slot, auto lanes) DDARTS_INLINE {
    const Lanes<A> upstream = load_lanes<A>(g + slot * kLanes);
    unroll<N>([&](auto n) DDARTS_INLINE {
      const Lanes<A> v = read<A>(x[n] + offset, lanes);
      each<A>([&](auto i) DDARTS_INLINE { sum[n].v[i] += upstream.v[i] * (v.v[i] - m[n].v[i]); });
    });
  });
  unroll<N>([&](auto n) DDARTS_INLINE { store_lanes<A>(product[n], sum[n]); });
}

// dx = a g + s x + d, or a g without reading x
template <bool kReadsInput, typename A, typename T>
inline void block_gradient(const A* g, const T* x, T* dx, const Block& b, const A* a, const A* s, const A* d) {
  const Lanes<A> by_gradient = load_lanes<A>(a), by_input = load_lanes<A>(s), constant = load_lanes<A>(d);
  for_rows(b, [&](int64_t offset, int64_t slot, auto lanes) DDARTS_INLINE {
    Lanes<A> v = load_lanes<A>(g + slot * kLanes);
    if constexpr (kReadsInput) {
      const Lanes<A> input = read<A>(x + offset, lanes);
      each<A>([&](auto i) DDARTS_INLINE { v.v[i] = by_gradient.v[i] * v.v[i] + (by_input.v[i] * input.v[i] + constant.v[i]); });
    } else {
      each<A>([&](auto i) DDARTS_INLINE { v.v[i] *= by_gradient.v[i]; });
    }
    write<A>(dx + offset, v, lanes);
  });
}

// The block in the accumulation type, zeros in unused lanes.
template <typename A, typename T>
inline void read_block(const T* x, const Block& b, A* values) {
  for_rows(b, [&](int64_t offset, int64_t slot, auto lanes) DDARTS_INLINE {
    store_lanes<A>(values + slot * kLanes, read<A>(x + offset, lanes));
  });
}
template <typename A, typename T>
inline void write_block(const A* values, const Block& b, T* x) {
  for_rows(b, [&](int64_t offset, int64_t slot, auto lanes) DDARTS_INLINE {
    write<A>(x + offset, load_lanes<A>(values + slot * kLanes), lanes);
  });
}

}  // namespace ddarts::DDARTS_CPU_COPY
