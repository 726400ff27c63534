// Chooses packet width, lanes and block size of channel_iim; see channel_iim.cuh.
#include "channel_iim.cuh"

namespace ddarts {
namespace {

// A whole number of warps, at least one and at most the block.
unsigned block_size(int64_t wanted) {
  const int64_t rounded = (wanted + 31) / 32 * 32;
  return static_cast<unsigned>(rounded < 32 ? 32 : rounded > iim::kThreads ? iim::kThreads : rounded);
}

template <typename T, int V>
void launch(const iim::Arguments& arguments, dim3 grid, cudaStream_t stream) {
  const IimShape& shape = arguments.shape;
  if (!shape.channels_last) {
    const dim3 block(block_size(shape.pixels / V));
    DDARTS_LAUNCH((iim::contiguous_kernel<T, V>), grid, block, 0, stream, arguments);
    return;
  }
  const int64_t packets = shape.channels / V;
  int lanes = 1;
  while (lanes < 32 && lanes < packets) lanes *= 2;
  const dim3 block(block_size(shape.pixels * lanes));
  if (packets <= lanes) {
    DDARTS_LAUNCH((iim::channels_last_kernel<T, V, true>), grid, block, 0, stream, arguments, lanes);
  } else {
    DDARTS_LAUNCH((iim::channels_last_kernel<T, V, false>), grid, block, 0, stream, arguments, lanes);
  }
}

}  // namespace

cudaError_t channel_iim(DType dtype, const IimMap* maps, int count, const IimShape& shape, cudaStream_t stream) {
  if (count == 0 || shape.samples == 0) return cudaSuccess;
  iim::Arguments arguments{};
  arguments.shape = shape;
  bool all_aligned = true;
  int64_t runs = shape.channels_last ? shape.channels : shape.pixels;  // with the pitches: packets are powers of two
  for (int k = 0; k < count; ++k) {
    arguments.maps[k] = maps[k];
    all_aligned = all_aligned && aligned(maps[k].data);
    if (shape.channels_last) runs |= maps[k].pitch;
  }
  const dim3 grid(static_cast<unsigned>(shape.samples), static_cast<unsigned>(count));
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    constexpr int kPacket = 16 / static_cast<int>(sizeof(T));
    if (all_aligned && runs % kPacket == 0) {
      launch<T, kPacket>(arguments, grid, stream);
    } else {
      launch<T, 1>(arguments, grid, stream);
    }
  })
  return cudaGetLastError();
}

}  // namespace ddarts
