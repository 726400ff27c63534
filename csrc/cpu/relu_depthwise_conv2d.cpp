// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, forward.
//
//   z_f[n,c,i,j] = sum_{y,x} w_f[c,y,x] a[n,c,i*s + d_f*y - p_f,j*s + d_f*x - p_f],  a = relu(x) or relu((x - mean) rstd)
//   out_f = z_f, or out_f[n,o,i,j] = sum_c u_f[o,c] z_f[n,c,i,j] with pointwise weights u
//
// A task is (sample, band of rows, panel of channels): the band is read once into tiles of relu'd values, and every
// filter is computed from them. With pointwise weights the panel is all channels, and a few rows of z at a time live in
// the first-level cache: z is never stored. Deterministic: every output is one sum in a fixed order, and the statistics
// are merged over samples in order.

#include "relu_depthwise_conv2d_core.h"
#include "relu_depthwise_conv2d_plan.h"

#include <cmath>

namespace ddarts {
namespace {

using torch::stable::Tensor;

// Sum over an image row after row in double, of f(value).
template <typename T, typename A, typename F>
void sum_image(const Image<const T>& image, Vector<A>* row, double* sums, F f) {
  for (int64_t r = 0; r < image.height; ++r) {
    read_row<T, A>(image, r, row);
    Vector<A> sum = {};
    for (int64_t j = 0; j < image.width; ++j) sum += f(row[j]);
    for (int l = 0; l < kLanes<A>; ++l) sums[l] += reinterpret_cast<const A*>(&sum)[l];
  }
}

// mean, rstd [G,C]: two passes over each image (the second is served by the cache), merged by Chan's rule.
template <typename T, typename A>
void batch_statistics(const Plan& p, const T* x, const Strides& strides, int64_t groups, double eps, A* mean, A* rstd) {
  constexpr int L = kLanes<A>;
  std::vector<double> parts(static_cast<size_t>(2 * p.n * p.blocks * L));
  const double pixels = static_cast<double>(p.h * p.w);
  torch::stable::parallel_for(0, p.n * p.blocks, 1, [&](int64_t begin, int64_t end) {
    Vector<A>* row = scratch<A>(0, p.w);
    for (int64_t t = begin; t < end; ++t) {
      const Image<const T> image = image_at<const T, L>(x, strides, t / p.blocks, t % p.blocks, p.c, p.h, p.w);
      double* part = parts.data() + 2 * t * L;
      double low[L] = {};
      sum_image<T, A>(image, row, part, [](Vector<A> v) { return v; });
      Vector<A> shift = {};
      for (int l = 0; l < L; ++l) reinterpret_cast<A*>(&shift)[l] = static_cast<A>(part[l] / pixels);
      sum_image<T, A>(image, row, part + L, [shift](Vector<A> v) { return (v - shift) * (v - shift); });
      sum_image<T, A>(image, row, low, [shift](Vector<A> v) { return v - shift; });
      for (int l = 0; l < L; ++l) {  // the shift is rounded: take it out of the second moment
        part[L + l] -= low[l] * low[l] / pixels;
        part[l] = static_cast<double>(reinterpret_cast<const A*>(&shift)[l]) + low[l] / pixels;
      }
    }
  });
  const int64_t batch = p.n / groups;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t c = 0; c < p.c; ++c) {
      double count = 0, middle = batch ? 0 : NAN, squares = batch ? 0 : NAN;
      for (int64_t n = g * batch; n < (g + 1) * batch; ++n, count += pixels) {
        const double* part = parts.data() + 2 * (n * p.blocks + c / L) * L + c % L;
        const double delta = part[0] - middle;
        middle += delta * pixels / (count + pixels);
        squares += part[L] + delta * delta * count * pixels / (count + pixels);
      }
      mean[g * p.c + c] = static_cast<A>(middle);
      rstd[g * p.c + c] = static_cast<A>(1.0 / std::sqrt(squares / count + eps));
    }
}

// Rows of a band that go through a depthwise filter and a pointwise matrix together, so that they stay in the L1 cache.
inline int64_t rows_together(const Plan& p) { return std::max<int64_t>(1, 64 / p.out_columns); }

template <typename T, typename A>
struct Forward {
  static constexpr int L = kLanes<A>;
  const Plan& p;
  const Tensor& x;
  const std::vector<Tensor>& outputs;
  int64_t batch;  // samples of a group
  const A *mean, *rstd;
  std::vector<A> table;
  std::vector<std::vector<A>> mixing;  // empty without pointwise convolutions

  void run() const {
    torch::stable::parallel_for(0, p.n * p.bands * p.panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) add_item(t / p.panels / p.bands, t / p.panels % p.bands, t % p.panels);
    });
  }

  void add_item(int64_t n, int64_t band, int64_t panel) const {
    const int64_t first = p.begin(band), rows = p.end(band) - first, blocks = p.blocks_of(panel);
    Vector<A>* tiles = scratch<A>(0, blocks * p.in_tile());
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t block = panel * p.panel + b;
      const Image<const T> image =
          image_at<const T, L>(static_cast<const T*>(x.const_data_ptr()), strides_of(x), n, block, p.c, p.h, p.w);
      const Prologue<A> prologue = prologue_of<A>(p, mean, rstd, n / batch, block);
      load_tile<T, A>(image, first * p.stride - p.pad, (rows - 1) * p.stride + 1 + 2 * p.pad, p.pad, p.in_columns,
                      tiles + b * p.in_tile(), &prologue);
    }
    for (size_t f = 0; f < outputs.size(); ++f)
      for (int64_t row = 0; row < rows; row += rows_together(p))
        add_rows(n, panel, f, first, row, std::min(rows_together(p), rows - row), tiles);
  }

  // Rows first + row ... of the output of one filter.
  void add_rows(int64_t n, int64_t panel, size_t f, int64_t first, int64_t row, int64_t rows, const Vector<A>* tiles) const {
    const Filter& filter = p.filters[f];
    const int64_t blocks = p.blocks_of(panel), skip = p.pad - filter.pad, size = rows_together(p) * p.out_columns;
    const int64_t channels = p.mixes() ? p.mixed : p.c, out_blocks = p.mixes() ? p.mixed_blocks : blocks;
    const int64_t out_first = p.mixes() ? 0 : panel * p.panel;
    const Strides strides = strides_of(outputs[f]);
    T* data = static_cast<T*>(outputs[f].mutable_data_ptr());
    const bool direct = in_blocks<T, A>(strides, channels, p.out_w);
    const Pixels<A> tile{reinterpret_cast<A*>(scratch<A>(1, std::max(blocks, out_blocks) * size)), size * L,
                         p.out_columns * L, L};
    Pixels<A> out = tile;
    if (direct) {
      out = {reinterpret_cast<A*>(data) + n * strides.n + out_first * L + (first + row) * strides.h, L, strides.h, strides.w};
    } else if (p.mixes()) {
      out.data = reinterpret_cast<A*>(scratch<A>(2, out_blocks * size));
    }
    const Pixels<A>& filtered = p.mixes() ? tile : out;
    for (int64_t b = 0; b < blocks; ++b) {
      const Vector<A>* taps =
          reinterpret_cast<const Vector<A>*>(table.data()) + (panel * p.panel + b) * p.taps + filter.first;
      const Vector<A>* in = tiles + b * p.in_tile() + (row * p.stride + skip) * p.in_columns + skip;
      select_correlate<A>(filter.k, filter.dilation, p.stride)(
          {in, p.in_columns, taps, static_cast<int>(filter.k), rows, p.out_columns, filtered.data + b * filtered.block,
           filtered.row, filtered.pixel, false});
    }
    if (p.mixes())
      mix<A>({tile.data, tile.block, tile.row, tile.pixel}, p.blocks, reinterpret_cast<const Vector<A>*>(mixing[f].data()),
             p.mixed_blocks, out, p.mixed_blocks, rows, p.out_columns);
    for (int64_t b = 0; !direct && b < out_blocks; ++b) {
      const Image<T> target = image_at<T, L>(data, strides, n, out_first + b, channels, p.out_h, p.out_w);
      for (int64_t r = 0; r < rows; ++r)
        write_row<T, A>(target, first + row + r, reinterpret_cast<const Vector<A>*>(out.data + b * out.block + r * out.row));
    }
  }
};

using Result = std::tuple<std::vector<Tensor>, Tensor, Tensor>;

template <typename T>
Result forward(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& pointwise,
               const std::vector<int64_t>& dilations, int64_t stride, bool normalize, const std::optional<Tensor>& mean,
               const std::optional<Tensor>& rstd, int64_t groups, double eps) {
  using A = accumulate_t<T>;
  const Plan p = make_plan(x, weights, pointwise, dilations, stride, kLanes<A>, !pointwise.empty());
  const int64_t size[2] = {normalize ? groups : 0, p.c};
  Tensor statistics[2] = {torch::stable::empty({size, 2}, kScalarType<A>), torch::stable::empty({size, 2}, kScalarType<A>)};
  A* rows[2] = {nullptr, nullptr};
  if (normalize) {
    for (int i = 0; i < 2; ++i) rows[i] = static_cast<A*>(statistics[i].mutable_data_ptr());
    for (int i = 0; i < 2 && mean.has_value(); ++i) {
      const std::vector<A> given = values_of<A>(i == 0 ? *mean : *rstd);
      for (int64_t j = 0; j < groups * p.c; ++j) rows[i][j] = given[static_cast<size_t>(j) % given.size()];
    }
    if (!mean.has_value())
      batch_statistics<T, A>(p, static_cast<const T*>(x.const_data_ptr()), strides_of(x), groups, eps, rows[0], rows[1]);
  }
  std::vector<Tensor> outputs;
  for (size_t f = 0; f < weights.size(); ++f)
    outputs.push_back(empty_in_layout_of(x, p.mixes() ? p.mixed : p.c, p.out_h, p.out_w, x.scalar_type()));
  const Forward<T, A> work{p, x, outputs, std::max<int64_t>(1, p.n / groups), rows[0], rows[1],
                           weight_table<A>(p, weights, [](const Filter& f, int64_t y, int64_t x) { return y * f.k + x; }),
                           mixing_tables<A>(p, pointwise, false)};
  work.run();
  return {outputs, statistics[0], statistics[1]};
}

Result relu_depthwise_conv2d(Tensor x, std::vector<Tensor> weights, std::vector<int64_t> dilations, int64_t stride,
                             bool normalize, std::optional<Tensor> mean, std::optional<Tensor> rstd, int64_t groups,
                             double eps) {
  Result result;
  THO_DISPATCH_V2(x.scalar_type(), "relu_depthwise_conv2d", AT_WRAP(([&] {
    result = forward<scalar_t>(x, weights, {}, dilations, stride, normalize, mean, rstd, groups, eps);
  })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  return result;
}

// Every input with the filters that read it; statistics are [G,I,C].
Result relu_separable_conv2d(std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise,
                             std::vector<int64_t> sources, std::vector<int64_t> dilations, int64_t stride, bool normalize,
                             std::optional<Tensor> mean, std::optional<Tensor> rstd, int64_t groups, double eps) {
  const Tensor& x = inputs[0];
  std::vector<std::optional<Tensor>> outputs(weights.size());
  Result result;
  THO_DISPATCH_V2(x.scalar_type(), "relu_separable_conv2d", AT_WRAP(([&] {
    using A = accumulate_t<scalar_t>;
    const int64_t count = static_cast<int64_t>(inputs.size()), channels = x.size(1);
    const int64_t size[3] = {normalize ? groups : 0, count, channels};
    Tensor statistics[2] = {torch::stable::empty({size, 3}, kScalarType<A>), torch::stable::empty({size, 3}, kScalarType<A>)};
    for (int64_t i = 0; i < count; ++i) {
      const Selection read = filters_of(i, sources, weights, pointwise, dilations);
      if (read.filters.empty()) continue;
      const auto row = [&](const std::optional<Tensor>& s) {
        return s.has_value() ? std::optional<Tensor>(torch::stable::select(*s, 1, i)) : std::nullopt;
      };
      const Result found = forward<scalar_t>(inputs[static_cast<size_t>(i)], read.weights, read.pointwise, read.dilations,
                                             stride, normalize, row(mean), row(rstd), groups, eps);
      for (size_t f = 0; f < read.filters.size(); ++f) outputs[static_cast<size_t>(read.filters[f])] = std::get<0>(found)[f];
      const Tensor* values[2] = {&std::get<1>(found), &std::get<2>(found)};
      for (int s = 0; s < 2; ++s)
        for (int64_t g = 0; g < size[0]; ++g)
          std::copy_n(static_cast<const A*>(values[s]->const_data_ptr()) + g * channels, channels,
                      static_cast<A*>(statistics[s].mutable_data_ptr()) + (g * count + i) * channels);
    }
    std::get<1>(result) = statistics[0], std::get<2>(result) = statistics[1];
  })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  for (const auto& out : outputs) std::get<0>(result).push_back(*out);
  return result;
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) {
  m.impl("relu_depthwise_conv2d", TORCH_BOX(&ddarts::relu_depthwise_conv2d));
  m.impl("relu_separable_conv2d", TORCH_BOX(&ddarts::relu_separable_conv2d));
}
