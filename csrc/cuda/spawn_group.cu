// Chooses word, packet and index width of spawn_group; see spawn_group.cuh.
#include "spawn_group.cuh"

#include <cstdint>

namespace ddarts {
namespace {

constexpr int64_t kNarrow = int64_t{1} << 31;  // counts below it, and a grid's stride beyond them, fit 32 bits unsigned

struct Counts {
  int64_t out_height, out_width, plane, run, inner;  // elements
  explicit Counts(const SpawnShape& s)
      : out_height(ceil_div(s.height, s.stride)),
        out_width(ceil_div(s.width, s.stride)),
        plane(out_height * out_width),
        run(s.channels_last ? s.channels : s.channels * plane),
        inner(s.channels_last ? s.channels : 1) {}
  // Elements that always move together: a word or packet must divide it.
  int64_t together(const SpawnShape& s) const { return s.stride == 1 ? run : inner; }
};

template <typename I>
spawn::Pattern<I> pattern(const SpawnShape& s, const Counts& c, int64_t unit) {
  // With stride 1 `inner` is not used; it may then be less than a unit.
  return {static_cast<I>(c.run / unit),  static_cast<I>(c.inner < unit ? 1 : c.inner / unit),
          static_cast<I>(s.height),      static_cast<I>(s.width),
          static_cast<I>(c.out_height),  static_cast<I>(c.out_width),
          static_cast<I>(s.copies),      static_cast<I>(s.stride)};
}

template <typename Word, typename I>
void forward(const void* groups, int64_t before, const void* source, int64_t words, void* out, const spawn::Pattern<I>& p,
             cudaStream_t stream) {
  const dim3 grid(grid_size(before > words ? before : words, spawn::kThreads));
  DDARTS_LAUNCH((spawn::forward_kernel<Word, I>), grid, dim3(spawn::kThreads), 0, stream,
                static_cast<const Word*>(groups), static_cast<I>(before), static_cast<const Word*>(source),
                static_cast<I>(words), static_cast<Word*>(out), p);
}

template <typename T, int V, typename I>
void backward(const void* grad, void* out, int64_t packets, const spawn::Pattern<I>& p, cudaStream_t stream) {
  DDARTS_LAUNCH((spawn::backward_kernel<T, V, I>), dim3(grid_size(packets, spawn::kThreads)), dim3(spawn::kThreads), 0,
                stream, static_cast<const Packed<T, V>*>(grad), static_cast<Packed<T, V>*>(out), static_cast<I>(packets),
                p);
}

template <typename Word>
void forward_words(size_t element, const void* groups, int64_t before, const void* source, void* out,
                   const SpawnShape& s, const Counts& c, cudaStream_t stream) {
  const int64_t unit = static_cast<int64_t>(sizeof(Word) / element);
  const int64_t group = s.batch * s.channels * c.plane * s.copies / unit;
  const int64_t words = source == nullptr ? group : group / s.copies;
  const int64_t before_words = before * s.channels * c.plane * s.copies / unit;
  const int64_t largest = before_words + group + s.batch * s.channels * s.height * s.width / unit;
  if (largest < kNarrow) {
    forward<Word>(groups, before_words, source, words, out, pattern<uint32_t>(s, c, unit), stream);
  } else {
    forward<Word>(groups, before_words, source, words, out, pattern<int64_t>(s, c, unit), stream);
  }
}

template <typename T, int V>
void backward_packets(const void* grad, void* out, const SpawnShape& s, const Counts& c, cudaStream_t stream) {
  const int64_t packets = s.batch * s.channels * s.height * s.width / V;
  if (packets * s.copies < kNarrow) {
    backward<T, V>(grad, out, packets, pattern<uint32_t>(s, c, V), stream);
  } else {
    backward<T, V>(grad, out, packets, pattern<int64_t>(s, c, V), stream);
  }
}

}  // namespace

cudaError_t spawn_group(DType dtype, const void* groups, int64_t before, const void* source, void* out,
                        const SpawnShape& shape, cudaStream_t stream) {
  const Counts counts(shape);
  if (shape.batch * shape.channels * counts.plane == 0) return cudaSuccess;
  const size_t element = size_of(dtype);
  const int64_t bytes = (source == nullptr ? counts.run : counts.together(shape)) * static_cast<int64_t>(element);
  const auto fits = [&](size_t word) {
    return word >= element && bytes % static_cast<int64_t>(word) == 0 && aligned(groups, word) && aligned(source, word);
  };
  if (fits(16)) {
    forward_words<uint4>(element, groups, before, source, out, shape, counts, stream);
  } else if (fits(8)) {
    forward_words<uint2>(element, groups, before, source, out, shape, counts, stream);
  } else if (fits(4)) {
    forward_words<uint32_t>(element, groups, before, source, out, shape, counts, stream);
  } else {
    forward_words<uint16_t>(element, groups, before, source, out, shape, counts, stream);
  }
  return cudaGetLastError();
}

cudaError_t spawn_group_backward(DType dtype, const void* grad, void* out, const SpawnShape& shape, cudaStream_t stream) {
  const Counts counts(shape);
  if (shape.batch * shape.channels * counts.plane == 0) return cudaSuccess;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    constexpr int kPacket = 16 / static_cast<int>(sizeof(T));
    if (counts.together(shape) % kPacket == 0 && aligned(grad, 16)) {
      backward_packets<T, kPacket>(grad, out, shape, counts, stream);
    } else {
      backward_packets<T, 1>(grad, out, shape, counts, stream);
    }
  })
  return cudaGetLastError();
}

}  // namespace ddarts
