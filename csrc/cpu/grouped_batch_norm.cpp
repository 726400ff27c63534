// grouped_batch_norm on the CPU, forward and backward; ddarts_ext/ops/grouped_batch_norm.py has the equations.
//
// One kernel serves both layouts. A segment is a dense matrix of rows x p values: in channels-last a whole group (rows are
// its pixels, p = C), in contiguous a plane (p = 1), or as many images' planes of one channel as fill a tile. Segments are cut into tiles that fit the first-level cache, a tile is
// worked on in lanes: `copies` rows side by side, so that short rows still fill vectors, with the parameters repeated.
// Statistics: sum, then squares about the tile's own mean, both while the tile is in cache; tiles are joined by
// M2 = sum_i M2_i + n_i (mean_i - mean)^2 in order, as stable as two passes over all and the same for any number of threads.
// Passes over tensors: forward reads x twice and writes once; backward reads x and grad twice and writes once.
#include "../common/simd.h"

#include "../common/parallel.h"
#include "../common/exact_moments.h"
#include "../common/grouped_batch_norm_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

namespace ddarts {
namespace {

constexpr int64_t kTileValues = 4096, kLanes = 64;

struct Geometry {
  int64_t groups, batch, channels, pixels;  // batch: images of one group
  bool last;
  int64_t p, rows, planes, chunks, segments, copies, width, tile_rows, tiles;  // tiles: of one segment

  Geometry(const Tensor& x, int64_t group_count, bool channels_last)
      : groups(group_count), batch(x.size(0) / group_count), channels(x.size(1)), pixels(x.size(2) * x.size(3)),
        last(channels_last), p(last ? channels : 1), rows(last ? batch * pixels : pixels),
        planes(last ? 1 : std::clamp<int64_t>(kTileValues / std::max<int64_t>(pixels, 1), 1, std::max<int64_t>(batch, 1))),
        chunks(last ? 1 : (batch + planes - 1) / planes), segments(last ? groups : groups * chunks * channels) {
    for (copies = 1; copies * p < kLanes;) copies *= 2;
    width = copies * p;
    tile_rows = std::max(copies, kTileValues / width * copies);
    tiles = (rows + tile_rows - 1) / tile_rows;
  }
  int64_t values() const { return batch * pixels; }  // M
  int64_t parameter_row(int64_t segment) const {
    return last ? segment : segment / (chunks * channels) * channels + segment % channels;
  }
  int64_t parameter_width() const { return last ? width : 1; }
  int64_t parts() const { return last ? tiles : chunks * tiles; }  // tiles of one channel of one group
  int64_t planes_of(int64_t chunk) const { return last ? 1 : std::min(planes, batch - chunk * planes); }
  int64_t part_values(int64_t part) const {
    return planes_of(part / tiles) * std::min(tile_rows, rows - part % tiles * tile_rows);
  }
  int64_t part(int64_t group, int64_t i, int64_t c) const {  // where a channel's part i lies among the partial results
    if (last) return (group * tiles + i) * channels + c;
    return ((group * chunks + i / tiles) * channels + c) * tiles + i % tiles;
  }
};

// `count` runs of n values, `stride` apart from `at` on; partial: where its results lie.
struct Tile {
  int64_t segment, at, n, count, stride, partial;
};

template <typename Body>
void over_tiles(const Geometry& g, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 4 * kTileValues / (std::min(g.rows, g.tile_rows) * g.p * g.planes + 1));
  parallel_pieces(g.segments * g.tiles, grain, [&](int64_t from, int64_t to) {
    for (int64_t tile = from; tile < to; ++tile) {
      const int64_t segment = tile / g.tiles, row = tile % g.tiles * g.tile_rows;
      const int64_t chunk = segment / g.channels % g.chunks, group = segment / (g.chunks * g.channels);
      const int64_t plane = ((group * g.batch + chunk * g.planes) * g.channels + segment % g.channels) * g.pixels;
      body(Tile{segment, (g.last ? segment * g.rows : plane) * g.p + row * g.p, std::min(g.tile_rows, g.rows - row) * g.p,
                g.planes_of(chunk), g.channels * g.pixels, tile * g.p});
    }
  });
}

// What the elementwise passes need of a channel, each repeated over the lanes (contiguous: one value).
template <typename A>
struct Parameters {
  enum Name { mean, scale, bias, shift, slope, names };
  int64_t width;
  std::vector<A> table;
  explicit Parameters(const Geometry& g)
      : width(g.parameter_width()), table(static_cast<size_t>((g.last ? g.groups : g.groups * g.channels) * names * width)) {}
  void set(const Geometry& g, int64_t group, int64_t c, Name name, A value) {
    A* row = table.data() + ((g.last ? group : group * g.channels + c) * names + name) * width;
    for (int64_t i = g.last ? c : 0; i < width; i += g.channels) row[i] = value;
  }
  const A* of(int64_t row, Name name) const { return table.data() + (row * names + name) * width; }
};

// The tile in the accumulation dtype: itself, or widened into `buffer`.
template <typename T, typename A>
inline const A* wide(const T* x, A* buffer, int64_t n) {
  if constexpr (std::is_same_v<T, A>) {
    return x;
  } else {
    load_row(x, buffer, n);
    return buffer;
  }
}

// Adds the lanes that belong to the same channel: lane l is channel l % p.
template <typename A>
inline void fold(A* lanes, const Geometry& g) {
  for (int64_t half = g.width / 2; half >= g.p; half /= 2) {
#pragma omp simd
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
}

// Calls step(lane, value index) for every value of a tile; inner loops run over lanes.
template <typename Step>
inline void by_lanes(int64_t n, int64_t width, const Step& step) {
  for (int64_t i = 0; i < n; i += width) {
    const int64_t count = std::min(width, n - i);
#pragma omp simd
    for (int64_t l = 0; l < count; ++l) step(l, i + l);
  }
}

template <typename A>
void tile_statistics(const A* first, int64_t stride, const Tile& tile, const Geometry& g, A* __restrict__ lanes,
                     A* __restrict__ centre, A* mean, A* m2) {
  std::fill_n(lanes, g.width, A(0));
  for (int64_t r = 0; r < tile.count; ++r) {
    const A* __restrict__ x = first + r * stride;
    by_lanes(tile.n, g.width, [=](int64_t l, int64_t i) { lanes[l] += x[i]; });
  }
  fold(lanes, g);
  const A inverse = A(1) / static_cast<A>(tile.count * tile.n / g.p);
  for (int64_t c = 0; c < g.p; ++c) mean[c] = lanes[c] * inverse;
  for (int64_t l = 0; l < g.width; l += g.p) std::copy_n(mean, g.p, centre + l);
  std::fill_n(lanes, g.width, A(0));
  for (int64_t r = 0; r < tile.count; ++r) {
    const A* __restrict__ x = first + r * stride;
    by_lanes(tile.n, g.width, [=](int64_t l, int64_t i) { lanes[l] += (x[i] - centre[l]) * (x[i] - centre[l]); });
  }
  fold(lanes, g);
  std::copy_n(lanes, g.p, m2);
}

// mean and rstd of every group and channel from its tiles; few values, so in double: tiles' means may be large.
template <typename A>
void join_statistics(const Geometry& g, const std::vector<A>& means, const std::vector<A>& m2s, double eps, A* mean, A* rstd) {
  std::vector<double> sum(static_cast<size_t>(g.channels)), square(sum.size());
  const double inverse = 1.0 / static_cast<double>(std::max<int64_t>(g.values(), 1));
  for (int64_t group = 0; group < g.groups; ++group) {
    std::fill(sum.begin(), sum.end(), 0.0);
    std::fill(square.begin(), square.end(), 0.0);
    for (int64_t i = 0; i < g.parts(); ++i) {
      const double share = static_cast<double>(g.part_values(i)) * inverse;
      for (int64_t c = 0; c < g.channels; ++c) sum[c] += share * means[g.part(group, i, c)];
    }
    for (int64_t i = 0; i < g.parts(); ++i) {
      const double values = static_cast<double>(g.part_values(i));
      for (int64_t c = 0; c < g.channels; ++c) {
        const int64_t at = g.part(group, i, c);
        const double d = means[at] - sum[c];
        square[c] += m2s[at] + values * d * d;
      }
    }
    for (int64_t c = 0; c < g.channels; ++c) {
      mean[group * g.channels + c] = static_cast<A>(sum[c]);
      rstd[group * g.channels + c] = static_cast<A>(1.0 / std::sqrt(square[c] * inverse + eps));
    }
  }
}

template <typename T, typename A>
void statistics(const T* x, const Geometry& g, double eps, A* mean, A* rstd) {
  std::vector<A> means(static_cast<size_t>(g.segments * g.tiles * g.p)), m2s(means.size());
  over_tiles(g, [&](const Tile& tile) {
    static thread_local std::vector<A> scratch;
    scratch.resize(static_cast<size_t>(2 * g.width + tile.count * tile.n));
    A *lanes = scratch.data(), *centre = lanes + g.width, *buffer = centre + g.width;
    const A* first = wide(x + tile.at, buffer, tile.n);
    if constexpr (!std::is_same_v<T, A>)
      for (int64_t r = 1; r < tile.count; ++r) load_row(x + tile.at + r * tile.stride, buffer + r * tile.n, tile.n);
    tile_statistics(first, std::is_same_v<T, A> ? tile.stride : tile.n, tile, g, lanes, centre, means.data() + tile.partial,
                    m2s.data() + tile.partial);
  });
  join_statistics(g, means, m2s, eps, mean, rstd);
  if (g.values() == 0) return;
  const ChannelValues values{g.batch, 1, g.pixels, g.channels * g.pixels, 0, g.last ? g.channels : 1};
  for (int64_t i = 0; i < g.groups * g.channels; ++i) {
    const int64_t first = i / g.channels * g.batch * values.sample_stride + i % g.channels * (g.last ? 1 : g.pixels);
    mend_moments(x + first, values, eps, mean + i, rstd + i);
  }
}

// y = (x - mean) scale + bias; the backward repeats it to know where the ReLU cut.
template <typename A>
inline A affine(A x, A mean, A scale, A bias) {
  return (x - mean) * scale + bias;
}

template <typename T, typename A, bool kScalar>
void normalize(const T* x, T* out, const Geometry& g, const Parameters<A>& parameters, bool relu) {
  using P = Parameters<A>;
  over_tiles(g, [&](const Tile& tile) {
    static thread_local std::vector<A> scratch;
    const int64_t n = tile.n, row = g.parameter_row(tile.segment);
    scratch.resize(static_cast<size_t>(2 * n));
    const A *mean = parameters.of(row, P::mean), *scale = parameters.of(row, P::scale), *bias = parameters.of(row, P::bias);
    auto run = [&](int64_t at, auto cut) {
      const A* from = wide(x + at, scratch.data(), n);
      A* to = scratch.data() + n;
      if constexpr (std::is_same_v<T, A>) to = out + at;
      const A *__restrict__ source = from;
      A* __restrict__ target = to;
      if constexpr (kScalar) {
        const A m = *mean, s = *scale, b = *bias;
        by_lanes(n, n, [=](int64_t, int64_t i) { target[i] = cut(affine(source[i], m, s, b)); });
      } else {
        by_lanes(n, g.width, [=](int64_t l, int64_t i) { target[i] = cut(affine(source[i], mean[l], scale[l], bias[l])); });
      }
      if constexpr (!std::is_same_v<T, A>) store_row(to, out + at, n);
    };
    for (int64_t r = 0; r < tile.count; ++r) {
      const int64_t at = tile.at + r * tile.stride;
      if (relu) run(at, [](A y) { return y < A(0) ? A(0) : y; });  // NaN stays NaN, as in torch
      else run(at, [](A y) { return y; });
    }
  });
}

// Per tile: sum of d, and of d (x - mean), where d is the gradient that the ReLU let through.
template <typename T, typename A, bool kScalar, bool kRelu>
void reduce_gradient(const T* grad, const T* x, const Geometry& g, const Parameters<A>& parameters, A* sums, A* products) {
  using P = Parameters<A>;
  over_tiles(g, [&](const Tile& tile) {
    static thread_local std::vector<A> scratch;
    const int64_t n = tile.n, row = g.parameter_row(tile.segment);
    scratch.resize(static_cast<size_t>(2 * g.width + 2 * n));
    A *__restrict__ sum = scratch.data(), *__restrict__ product = sum + g.width;
    std::fill_n(sum, 2 * g.width, A(0));
    const A *mean = parameters.of(row, P::mean), *scale = parameters.of(row, P::scale), *bias = parameters.of(row, P::bias);
    const A m = *mean, s = *scale, b = *bias;
    for (int64_t r = 0; r < tile.count; ++r) {
      const int64_t at = tile.at + r * tile.stride;
      const A *dy = wide(grad + at, product + g.width, n), *in = wide(x + at, product + g.width + n, n);
      by_lanes(n, g.width, [=](int64_t l, int64_t i) {
        const A mu = kScalar ? m : mean[l];
        A d = dy[i];
        if constexpr (kRelu) d = affine(in[i], mu, kScalar ? s : scale[l], kScalar ? b : bias[l]) <= A(0) ? A(0) : d;
        sum[l] += d;
        product[l] += d * (in[i] - mu);
      });
    }
    fold(sum, g), fold(product, g);
    std::copy_n(sum, g.p, sums + tile.partial);
    std::copy_n(product, g.p, products + tile.partial);
  });
}

// dx = (d - shift - (x - mean) slope) scale; with given statistics dx = d scale.
template <typename T, typename A, bool kScalar, bool kRelu, bool kBatch>
void input_gradient(const T* grad, const T* x, T* dx, const Geometry& g, const Parameters<A>& parameters) {
  using P = Parameters<A>;
  over_tiles(g, [&](const Tile& tile) {
    static thread_local std::vector<A> scratch;
    const int64_t n = tile.n, row = g.parameter_row(tile.segment);
    scratch.resize(static_cast<size_t>(3 * n));
    const A *mean = parameters.of(row, P::mean), *scale = parameters.of(row, P::scale), *bias = parameters.of(row, P::bias);
    const A *shift = parameters.of(row, P::shift), *slope = parameters.of(row, P::slope);
    const A m = *mean, s = *scale, b = *bias, a = *shift, t = *slope;
    for (int64_t r = 0; r < tile.count; ++r) {
      const int64_t at = tile.at + r * tile.stride;
      const A *dy = wide(grad + at, scratch.data(), n), *in = wide(x + at, scratch.data() + n, n);
      A* to = scratch.data() + 2 * n;
      if constexpr (std::is_same_v<T, A>) to = dx + at;
      A* __restrict__ target = to;
      by_lanes(n, kScalar ? n : g.width, [=](int64_t l, int64_t i) {
        const A mu = kScalar ? m : mean[l], factor = kScalar ? s : scale[l];
        A d = dy[i];
        if constexpr (kRelu) d = affine(in[i], mu, factor, kScalar ? b : bias[l]) <= A(0) ? A(0) : d;
        if constexpr (kBatch) d -= (kScalar ? a : shift[l]) + (in[i] - mu) * (kScalar ? t : slope[l]);
        target[i] = d * factor;
      });
      if constexpr (!std::is_same_v<T, A>) store_row(to, dx + at, n);
    }
  });
}

template <typename A>
Parameters<A> forward_parameters(const Geometry& g, const A* mean, const A* rstd, const std::optional<Tensor>& weight,
                                 const std::optional<Tensor>& bias) {
  Parameters<A> table(g);
  const A* w = weight ? weight->const_data_ptr<A>() : nullptr;
  const A* b = bias ? bias->const_data_ptr<A>() : nullptr;
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t c = 0; c < g.channels; ++c) {
      const int64_t at = group * g.channels + c;
      // An rstd of 0 (see mend_moments) makes 0 of everything, x - mean may be infinite.
      table.set(g, group, c, Parameters<A>::mean, rstd[at] == A(0) ? A(0) : mean[at]);
      table.set(g, group, c, Parameters<A>::scale, w ? rstd[at] * w[c] : rstd[at]);
      table.set(g, group, c, Parameters<A>::bias, b ? b[c] : A(0));
    }
  return table;
}

std::tuple<Tensor, Tensor, Tensor> grouped_batch_norm(const Tensor& input, std::optional<Tensor> weight,
                                                      std::optional<Tensor> bias, std::optional<Tensor> given_mean,
                                                      std::optional<Tensor> given_rstd, int64_t groups, double eps, bool relu) {
  check_grouped_batch_norm(input, weight, bias, given_mean, given_rstd, groups);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last);
  const Geometry g(x, groups, last);
  const ScalarType acc = accumulate_dtype(x);
  Tensor out = layout::like(x, x.scalar_type(), last);
  Tensor mean = layout::table(x, {groups, g.channels}, acc), rstd = layout::table(x, {groups, g.channels}, acc);
  weight = dense(weight, acc), bias = dense(bias, acc);
  if (given_mean) torch::stable::copy_(mean, *given_mean), torch::stable::copy_(rstd, *given_rstd);
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    using A = accumulate_t<scalar_t>;
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    A *mu = mean.mutable_data_ptr<A>(), *r = rstd.mutable_data_ptr<A>();
    if (!given_mean) statistics<scalar_t, A>(from, g, eps, mu, r);
    const auto parameters = forward_parameters<A>(g, mu, r, weight, bias);
    const auto run = last ? &normalize<scalar_t, A, false> : &normalize<scalar_t, A, true>;
    run(from, out.mutable_data_ptr<scalar_t>(), g, parameters, relu);
  });
  return {out, mean, rstd};
}

// Joins the tiles' sums into shift and slope, and into the gradients of weight and bias [C] (null where not wanted).
template <typename A>
void join_gradient(const Geometry& g, const std::vector<A>& sums, const std::vector<A>& products, const A* rstd,
                   Parameters<A>& parameters, A* dweight, A* dbias) {
  const A inverse = A(1) / static_cast<A>(std::max<int64_t>(g.values(), 1));
  std::vector<A> sum(static_cast<size_t>(g.channels)), product(sum.size());
  for (int64_t group = 0; group < g.groups; ++group) {
    std::fill(sum.begin(), sum.end(), A(0));
    std::fill(product.begin(), product.end(), A(0));
    for (int64_t i = 0; i < g.parts(); ++i)
      for (int64_t c = 0; c < g.channels; ++c) {
        const int64_t at = g.part(group, i, c);
        sum[c] += sums[at], product[c] += products[at];
      }
    for (int64_t c = 0; c < g.channels; ++c) {
      const A r = rstd[group * g.channels + c];
      if (r == A(0)) sum[c] = product[c] = A(0);  // see mend_moments: the sums may have overflowed, and count nothing
      parameters.set(g, group, c, Parameters<A>::shift, sum[c] * inverse);
      parameters.set(g, group, c, Parameters<A>::slope, product[c] * r * r * inverse);
      if (dweight) dweight[c] += product[c] * r;
      if (dbias) dbias[c] += sum[c];
    }
  }
}

// Where sums begin: a gradient of so many channels, in the dtype of the statistics.
Tensor zero_row(int64_t channels, const Tensor& statistics) {
  const Tensor row = layout::table(statistics, {channels}, statistics.scalar_type());
  if (row.scalar_type() == ScalarType::Double) std::fill_n(mutable_data<double>(row), channels, 0.0);
  else std::fill_n(mutable_data<float>(row), channels, 0.0F);
  return row;
}

std::tuple<Tensor, Tensor, Tensor> grouped_batch_norm_backward(const Tensor& grad_in, const Tensor& input,
                                                               std::optional<Tensor> weight_in, std::optional<Tensor> bias_in,
                                                               const Tensor& mean_in, const Tensor& rstd_in,
                                                               bool batch_statistics, int64_t groups, bool relu) {
  check_grouped_batch_norm_backward(grad_in, input, weight_in, bias_in, mean_in, rstd_in, groups);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last), grad = layout::as(grad_in, last);
  const Geometry g(x, groups, last);
  const ScalarType acc = accumulate_dtype(x);
  const Tensor mean = dense(mean_in, acc), rstd = dense(rstd_in, acc);
  const auto weight = dense(weight_in, acc), bias = dense(bias_in, acc);
  Tensor dx = layout::like(x, x.scalar_type(), last);
  Tensor dweight = zero_row(weight ? g.channels : 0, mean), dbias = zero_row(bias ? g.channels : 0, mean);
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    using A = accumulate_t<scalar_t>;
    const scalar_t *dy = grad.const_data_ptr<scalar_t>(), *from = x.const_data_ptr<scalar_t>();
    auto parameters = forward_parameters<A>(g, mean.const_data_ptr<A>(), rstd.const_data_ptr<A>(), weight, bias);
    auto run = [&](auto scalar, auto cut) {
      constexpr bool kScalar = decltype(scalar)::value, kRelu = decltype(cut)::value;
      if (batch_statistics || weight || bias) {
        std::vector<A> sums(static_cast<size_t>(g.segments * g.tiles * g.p)), products(sums.size());
        reduce_gradient<scalar_t, A, kScalar, kRelu>(dy, from, g, parameters, sums.data(), products.data());
        join_gradient<A>(g, sums, products, rstd.const_data_ptr<A>(), parameters,
                         weight ? dweight.mutable_data_ptr<A>() : nullptr, bias ? dbias.mutable_data_ptr<A>() : nullptr);
      }
      const auto elementwise = batch_statistics ? &input_gradient<scalar_t, A, kScalar, kRelu, true>
                                                : &input_gradient<scalar_t, A, kScalar, kRelu, false>;
      elementwise(dy, from, dx.mutable_data_ptr<scalar_t>(), g, parameters);
    };
    if (last) relu ? run(std::false_type{}, std::true_type{}) : run(std::false_type{}, std::false_type{});
    else relu ? run(std::true_type{}, std::true_type{}) : run(std::true_type{}, std::false_type{});
  });
  if (weight) dweight = dense(dweight, weight_in->scalar_type());
  if (bias) dbias = dense(dbias, bias_in->scalar_type());
  return {dx, dweight, dbias};
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) {
  m.impl("grouped_batch_norm", TORCH_BOX(&ddarts::grouped_batch_norm));
  m.impl("grouped_batch_norm_backward", TORCH_BOX(&ddarts::grouped_batch_norm_backward));
}
