// channel_iim on the CPU: per sample, the unbiased variance over the channels of every pixel, then 3(C-1)/C * mean s^-4
// (or the paper's (sum 1/(2 s^4))^-1). Every map is read once from memory: a tile of 64 pixels (contiguous) or one pixel
// (channels-last) is visited twice while it is in the first-level cache, so the variance is the two-pass one, taken about
// the pixel's first channel, which makes a constant pixel exactly zero. A (map, sample) pair belongs to one thread:
// the result does not depend on the number of threads.
#include "../common/parallel.h"
#include "../common/simd.h"
#include "../common/channel_iim_check.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts {
namespace {

constexpr int kTile = 64;

// 32 bytes of values; the horizontal sums of the channels-last path are not found by the vectoriser.
template <typename A>
struct Lanes {
  static constexpr int count = 32 / static_cast<int>(sizeof(A));
  typedef A Vector __attribute__((vector_size(32)));
  Vector v;
};

// The values themselves where they have the accumulation type, else their widened copy in `buffer`.
template <typename T, typename A>
inline const A* widened(const T* x, A* buffer, int64_t n) {
  if constexpr (std::is_same_v<T, A>) {
    return x;
  } else {
    load_row(x, buffer, n);
    return buffer;
  }
}

// sum over `count` pixels of s_p^-4, one channel plane after the other; x points at the first pixel of the tile.
template <typename T, typename A, typename Count>
inline double tile_contiguous(const T* x, int64_t channels, int64_t plane, Count count, const A* mean, const A* rstd) {
  A first[kTile], sum[kTile], square[kTile], buffer[kTile] = {};
  const A* start = widened(x, buffer, count);
  for (int p = 0; p < count; ++p) {
    first[p] = (start[p] - mean[0]) * rstd[0];
    sum[p] = A(0);
    square[p] = A(0);
  }
  for (int64_t c = 1; c < channels; ++c) {
    const A* row = widened(x + c * plane, buffer, count);
    const A m = mean[c], r = rstd[c];
    for (int p = 0; p < count; ++p) sum[p] += (row[p] - m) * r - first[p];
  }
  const A inverse = A(1) / static_cast<A>(channels);
  for (int p = 0; p < count; ++p) sum[p] *= inverse;
  for (int64_t c = 0; c < channels; ++c) {
    const A* row = widened(x + c * plane, buffer, count);
    const A m = mean[c], r = rstd[c];
    for (int p = 0; p < count; ++p) {
      const A d = (row[p] - m) * r - first[p] - sum[p];
      square[p] += d * d;
    }
  }
  const A unbiased = channels > 1 ? A(1) / static_cast<A>(channels - 1) : A(0);
  for (int p = 0; p < count; ++p) square[p] = A(1) / (square[p] * unbiased * (square[p] * unbiased));
  double total = 0;
  for (int p = 0; p < count; ++p) total += static_cast<double>(square[p]);
  return total;
}

template <typename A>
inline A horizontal_sum(const Lanes<A>& x) {
  if constexpr (Lanes<A>::count == 8) {
    return ((x.v[0] + x.v[4]) + (x.v[2] + x.v[6])) + ((x.v[1] + x.v[5]) + (x.v[3] + x.v[7]));
  } else {
    return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]);
  }
}

template <typename A>
inline Lanes<A> load(const A* p) {
  Lanes<A> x;
  std::memcpy(&x.v, p, sizeof(x.v));
  return x;
}

// s_p^-4 of one pixel whose channels lie next to each other. row: scratch of `channels` values.
template <typename T, typename A>
inline A pixel_channels_last(const T* values, int64_t channels, const A* mean, const A* rstd, A* row) {
  constexpr int kCount = Lanes<A>::count;
  const A* x = widened(values, row, channels);
  const A first = (x[0] - mean[0]) * rstd[0];
  const int64_t whole = channels - channels % kCount;
  Lanes<A> lanes{}, squares{};
  A sum = A(0), square = A(0);
  for (int64_t c = 0; c < whole; c += kCount) {
    const Lanes<A> d{(load(x + c).v - load(mean + c).v) * load(rstd + c).v - first};
    std::memcpy(row + c, &d.v, sizeof(d.v));
    lanes.v += d.v;
  }
  for (int64_t c = whole; c < channels; ++c) {
    row[c] = (x[c] - mean[c]) * rstd[c] - first;
    sum += row[c];
  }
  const A center = (horizontal_sum(lanes) + sum) / static_cast<A>(channels);
  for (int64_t c = 0; c < whole; c += kCount) {
    const auto d = load(row + c).v - center;
    squares.v += d * d;
  }
  for (int64_t c = whole; c < channels; ++c) square += (row[c] - center) * (row[c] - center);
  const A variance = channels > 1 ? (horizontal_sum(squares) + square) / static_cast<A>(channels - 1) : A(0);
  return A(1) / (variance * variance);
}

struct Shape {
  int64_t channels, pixels;
  bool channels_last;
};

// sum over all pixels of one sample of s_p^-4
template <typename T, typename A>
inline double sample_sum(const T* x, Shape shape, const A* mean, const A* rstd, A* row) {
  double total = 0;
  if (shape.channels_last) {
    for (int64_t p = 0; p < shape.pixels; ++p)
      total += static_cast<double>(pixel_channels_last(x + p * shape.channels, shape.channels, mean, rstd, row));
    return total;
  }
  int64_t p = 0;
  for (; p + kTile <= shape.pixels; p += kTile)
    total += tile_contiguous(x + p, shape.channels, shape.pixels, std::integral_constant<int, kTile>(), mean, rstd);
  if (p < shape.pixels)
    total += tile_contiguous(x + p, shape.channels, shape.pixels, static_cast<int>(shape.pixels - p), mean, rstd);
  return total;
}

template <typename A>
A measure(double sum, Shape shape, bool paper) {
  if (paper) return static_cast<A>(2.0 / sum);
  const double channels = static_cast<double>(shape.channels);
  const double factor = shape.channels > 1 ? 3.0 * (channels - 1.0) / channels : 1.0;
  return static_cast<A>(factor * sum / static_cast<double>(shape.pixels));
}

// One map: all its samples. out: [N]; mean, rstd: [groups, K, C] at the map's row, null where it is measured raw.
template <typename A>
void map_kernel(const Tensor& given, const A* mean, const A* rstd, int64_t groups, int64_t group_stride, bool paper, A* out) {
  const bool channels_last = layout::channels_last(given);
  const Tensor x = layout::as(given, channels_last);
  const int64_t samples = x.size(0);
  const Shape shape{x.size(1), x.size(2) * x.size(3), channels_last};
  const int64_t per_group = samples / groups, size = shape.channels * shape.pixels;
  const std::vector<A> zeros(shape.channels, A(0)), ones(shape.channels, A(1));
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    if constexpr (std::is_same_v<accumulate_t<scalar_t>, A>) {
      const scalar_t* data = x.const_data_ptr<scalar_t>();
      const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, size));
      parallel_pieces(samples, grain, [&](int64_t begin, int64_t end) {
        std::vector<A> row(shape.channels);
        for (int64_t n = begin; n < end; ++n) {
          const int64_t offset = (n / per_group) * group_stride;
          const A* m = mean == nullptr ? zeros.data() : mean + offset;
          const A* r = rstd == nullptr ? ones.data() : rstd + offset;
          out[n] = measure<A>(sample_sum(data + n * size, shape, m, r, row.data()), shape, paper);
        }
      });
    }
  });
}

template <typename A>
void all_maps(const std::vector<Tensor>& maps, const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd,
              const std::vector<bool>& normalize, bool paper, Tensor& out) {
  const int64_t channels = maps[0].size(1), count = static_cast<int64_t>(maps.size());
  std::optional<Tensor> m, r;
  if (mean.has_value()) m = torch::stable::contiguous(*mean);
  if (rstd.has_value()) r = torch::stable::contiguous(*rstd);
  A* result = out.mutable_data_ptr<A>();
  for (int64_t k = 0; k < count; ++k) {
    const bool with = normalize[k] && m.has_value() && r.has_value();
    map_kernel<A>(maps[k], with ? m->const_data_ptr<A>() + k * channels : nullptr,
                  with ? r->const_data_ptr<A>() + k * channels : nullptr, with ? m->size(0) : 1, count * channels, paper,
                  result + k * maps[k].size(0));
  }
}

Tensor channel_iim(std::vector<Tensor> maps, std::optional<Tensor> mean, std::optional<Tensor> rstd,
                   std::vector<bool> normalize, bool paper) {
  check_channel_iim(maps, mean, rstd, normalize);
  const ScalarType dtype = accumulate_dtype(maps[0]);
  Tensor out = torch::stable::new_empty(maps[0], {static_cast<int64_t>(maps.size()), maps[0].size(0)}, dtype);
  if (dtype == ScalarType::Double) all_maps<double>(maps, mean, rstd, normalize, paper, out);
  else all_maps<float>(maps, mean, rstd, normalize, paper, out);
  return out;
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) { m.impl("channel_iim", TORCH_BOX(&ddarts::channel_iim)); }
