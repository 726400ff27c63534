// Small contiguous planes for pool3x3 on the CPU: a row is too short to fill a vector, so a block of channels at a time
// becomes one channels-last plane, and its results planes again.
#pragma once

#include "../common/channel_tiles.h"

namespace ddarts::DDARTS_CPU_COPY {

constexpr int kByteLanes = 16;
typedef uint8_t Bytes __attribute__((vector_size(kByteLanes)));

// r[i][j] <-> r[j][i]: interleaving the halves four times brings every byte to its place.
DDARTS_INLINE inline void transpose(Bytes* r) {
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    Bytes t[kByteLanes];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = __builtin_shufflevector(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kByteLanes; ++i) r[i] = t[i];
  }
}

// Planes of `pixels` values of the channels of one block, `lanes` of L in use, as [pixels][L]: values of an image's type as
// those of sums, bytes as they are; and back.
template <typename T, typename A>
inline void read_planes(const T* planes, int64_t pixels, int lanes, A* block) {
  read_row<T, A>(Image<const T>{planes, pixels, 0, 1, 1, pixels, lanes}, 0, reinterpret_cast<Vector<A>*>(block));
}
template <typename T, typename A>
inline void write_planes(const A* block, int64_t pixels, int lanes, T* planes) {
  write_row<T, A>(Image<T>{planes, pixels, 0, 1, 1, pixels, lanes}, 0, reinterpret_cast<const Vector<A>*>(block));
}
template <int L>
inline void read_byte_planes(const uint8_t* planes, int64_t pixels, int lanes, uint8_t* block) {
  int64_t j = 0;
  for (; j + kByteLanes <= pixels; j += kByteLanes) {
    Bytes r[kByteLanes] = {};
    for (int l = 0; l < lanes; ++l) std::memcpy(r + l, planes + l * pixels + j, kByteLanes);
    transpose(r);
    for (int i = 0; i < kByteLanes; ++i) std::memcpy(block + (j + i) * L, r + i, L);
  }
  for (; j < pixels; ++j)
    for (int l = 0; l < L; ++l) block[j * L + l] = l < lanes ? planes[l * pixels + j] : 0;
}
template <int L>
inline void write_byte_planes(const uint8_t* block, int64_t pixels, int lanes, uint8_t* planes) {
  int64_t j = 0;
  for (; j + kByteLanes <= pixels; j += kByteLanes) {
    Bytes r[kByteLanes] = {};
    for (int i = 0; i < kByteLanes; ++i) std::memcpy(r + i, block + (j + i) * L, L);
    transpose(r);
    for (int l = 0; l < lanes; ++l) std::memcpy(planes + l * pixels + j, r + l, kByteLanes);
  }
  for (; j < pixels; ++j)
    for (int l = 0; l < lanes; ++l) planes[l * pixels + j] = block[j * L + l];
}

}  // namespace ddarts::DDARTS_CPU_COPY
