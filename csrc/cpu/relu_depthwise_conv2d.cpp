// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, forward.
//
//   z_f[n,c,i,j] = sum_{y,x} w_f[c,y,x] a[n,c,i*s + d_f*y - p_f,j*s + d_f*x - p_f],  a = relu(x) or relu((x - mean) rstd)
//   out_f = z_f, or out_f[n,o,i,j] = sum_c u_f[o,c] z_f[n,c,i,j] with pointwise weights u
//
// A task is (sample, band of rows, panel of channels): the band is read once into tiles of relu'd values, and every
// filter is computed from them. With pointwise weights the panel is all channels, and a few rows of z at a time live in
// the first-level cache: z is never stored. Deterministic: every output is one sum in a fixed order, and the statistics
// are merged over samples in order.

#include "../common/exact_moments.h"
#include "../common/relu_depthwise_conv2d_check.h"
#include "relu_depthwise_conv2d.h"
#include "relu_depthwise_conv2d_correlation.h"
#include "relu_depthwise_conv2d_weights.h"

#include <cmath>

namespace ddarts::DDARTS_CPU_COPY {
namespace {

// One input and the filters that read it.
template <typename T, typename A>
struct Forward {
  static constexpr int L = kLanes<A>;
  Plan p;
  View<const T> x;
  std::vector<Tensor> weights, pointwise;
  int64_t groups;
  std::vector<View<T>> outputs = {};
  std::vector<A> mean = {}, rstd = {};  // [G,C], empty without a norm
  Table<A> norms = {};                  // the same as vectors
  Table<A> table = {};
  std::vector<Table<A>> mixing = {};  // empty without pointwise convolutions
  std::vector<double> parts = {};       // [n * blocks][2][L]: mean and sum of squares about it of every image

  int64_t batch() const { return p.n / groups; }
  int64_t filters() const { return static_cast<int64_t>(weights.size()); }

  void prepare(int64_t filter) {
    const size_t f = static_cast<size_t>(filter);
    fill_taps<A>(p, p.filters[f], weights[f], forward_position, table);
    if (p.mixes()) mixing[f] = mixing_table<A>(pointwise[f], false);
  }

  // One pass over an image, about the mean of its first row, which is near enough to its own for float32.
  void add_moments(int64_t t) {
    const double pixels = static_cast<double>(p.h * p.w);
    Vector<A>* buffer = scratch<A>(0, p.w);
    const Image<const T> image = x.template image<A>(t / p.blocks, t % p.blocks);
    Vector<A> shift = {};
    const InRow<T, A> top(image, 0, buffer);
    for (int64_t j = 0; j < p.w; ++j) shift += top.at(j);
    shift /= static_cast<A>(p.w);
    double sums[2][L] = {};
    for (int64_t r = 0; r < p.h; ++r) {
      const InRow<T, A> row(image, r, buffer);
      Vector<A> sum[2] = {}, squares[2] = {};
      for (int64_t j = 0; j < p.w; ++j) {
        const Vector<A> v = row.at(j) - shift;
        sum[j % 2] += v, squares[j % 2] += v * v;
      }
      sum[0] += sum[1], squares[0] += squares[1];
      for (int l = 0; l < L; ++l) {
        sums[0][l] += reinterpret_cast<const A*>(&sum[0])[l];
        sums[1][l] += reinterpret_cast<const A*>(&squares[0])[l];
      }
    }
    double* part = parts.data() + 2 * t * L;
    for (int l = 0; l < L; ++l) {
      part[l] = static_cast<double>(reinterpret_cast<const A*>(&shift)[l]) + sums[0][l] / pixels;
      part[L + l] = std::max(sums[1][l] - sums[0][l] * sums[0][l] / pixels, 0.0);
    }
  }

  // mean and rstd of a group, its images merged by Chan's rule.
  void merge_moments(int64_t g, double eps) {
    const double pixels = static_cast<double>(p.h * p.w);
    for (int64_t c = 0; c < p.c; ++c) {
      double count = 0, middle = 0, squares = 0;  // which it stays with no image
      for (int64_t n = g * batch(); n < (g + 1) * batch(); ++n, count += pixels) {
        const double* part = parts.data() + 2 * (n * p.blocks + c / L) * L + c % L;
        const double delta = part[0] - middle;
        middle += delta * pixels / (count + pixels);
        squares += part[L] + delta * delta * count * pixels / (count + pixels);
      }
      mean[static_cast<size_t>(g * p.c + c)] = static_cast<A>(middle);
      rstd[static_cast<size_t>(g * p.c + c)] = static_cast<A>(1.0 / std::sqrt(squares / std::max(count, 1.0) + eps));
      const ChannelValues values{batch(), p.h, p.w, x.strides.n, x.strides.h, x.strides.w};
      if (batch() > 0)
        mend_moments(x.data + g * batch() * x.strides.n + c * x.strides.c, values, eps, &mean[static_cast<size_t>(g * p.c + c)],
                     &rstd[static_cast<size_t>(g * p.c + c)]);
    }
  }

  void add_item(int64_t t) const {
    const int64_t n = t / p.panels / p.bands, band = t / p.panels % p.bands, panel = t % p.panels;
    const int64_t first = p.begin(band), rows = p.end(band) - first, blocks = p.blocks_of(panel);
    Vector<A>* tiles = scratch<A>(0, blocks * p.in_tile());
    load_activation<T, A>(p, x, norms, n, n / batch(), panel * p.panel, blocks, first * p.stride - p.pad,
                          (rows - 1) * p.stride + 1 + 2 * p.pad, tiles);
    const int64_t size = rows_together(p) * p.out_columns;
    Vector<A>* filtered = scratch<A>(1, blocks * size);
    Vector<A>* mixed = scratch<A>(2, p.mixed_blocks * size);
    for (size_t f = 0; f < outputs.size(); ++f)
      for (int64_t row = 0; row < rows; row += rows_together(p))
        add_rows(n, panel, f, first, row, std::min(rows_together(p), rows - row), tiles, filtered, mixed);
  }

  // Rows first + row ... of the output of one filter. filtered, mixed: room for them, one tile a block.
  void add_rows(int64_t n, int64_t panel, size_t f, int64_t first, int64_t row, int64_t rows, const Vector<A>* tiles,
                Vector<A>* filtered, Vector<A>* mixed) const {
    const Filter& filter = p.filters[f];
    const View<T>& target = outputs[f];
    const int64_t blocks = p.blocks_of(panel), skip = p.pad - filter.pad, size = rows_together(p) * p.out_columns;
    const int64_t out_blocks = p.mixes() ? p.mixed_blocks : blocks, out_first = p.mixes() ? 0 : panel * p.panel;
    const bool direct = in_blocks<T, A>(target.strides, target.channels, p.out_w);
    const Pixels<A> tile{reinterpret_cast<A*>(filtered), size * L, p.out_columns * L, L};
    Pixels<A> out = tile;
    if (direct) {
      const Strides& s = target.strides;
      out = {reinterpret_cast<A*>(target.data) + n * s.n + out_first * L + (first + row) * s.h, L, s.h, s.w};
    } else if (p.mixes()) {
      out.data = reinterpret_cast<A*>(mixed);
    }
    const Pixels<A>& z = p.mixes() ? tile : out;
    const int64_t top = (first + row) * p.stride;  // the row of x at the middle of the filter
    for (int64_t b = 0; b < blocks; ++b) {
      const Vector<A>* taps =
          reinterpret_cast<const Vector<A>*>(table.data()) + (panel * p.panel + b) * p.taps + filter.first;
      const Vector<A>* in = tiles + b * p.in_tile() + (row * p.stride + skip) * p.in_columns + skip;
      select_correlate<A>(filter.k, filter.dilation, p.stride, true)(
          {reinterpret_cast<const A*>(in), p.in_columns * L, L, taps, static_cast<int>(filter.k), rows, p.out_columns,
           z.data + b * z.block, z.row, z.pixel, false, filter.pad - top, p.h + filter.pad - top, p.w == p.out_columns,
           direct && !p.mixes() && b % kPanel == 0});
    }
    if (p.mixes())
      mix<A>({tile.data, tile.block, tile.row, tile.pixel}, p.blocks, reinterpret_cast<const Vector<A>*>(mixing[f].data()),
             out, p.mixed_blocks, rows, p.out_columns);
    for (int64_t b = 0; !direct && b < out_blocks; ++b) {
      const Image<T> image = target.template image<A>(n, out_first + b);
      for (int64_t r = 0; r < rows; ++r)
        write_row<T, A>(image, first + row + r, reinterpret_cast<const Vector<A>*>(out.data + b * out.block + r * out.row));
    }
  }
};

using Result = std::tuple<std::vector<Tensor>, Tensor, Tensor>;

// Statistics are [G,I,C] here and in what is returned.
template <typename T>
Result forward(const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights, const std::vector<Tensor>& pointwise,
               const std::vector<int64_t>& sources, const std::vector<int64_t>& dilations, int64_t stride, bool normalize,
               const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, int64_t groups, double eps) {
  using A = accumulate_t<T>;
  std::vector<Forward<T, A>> jobs;
  std::vector<std::optional<Tensor>> outputs(weights.size());
  const int64_t count = static_cast<int64_t>(inputs.size()), channels = inputs[0].size(1);
  for (int64_t i = 0; i < count; ++i) {
    const Tensor& x = inputs[static_cast<size_t>(i)];
    const Selection read = filters_of(i, sources, weights, pointwise, dilations);
    jobs.push_back({make_plan(x, read.weights, read.pointwise, read.dilations, stride, kLanes<A>, !pointwise.empty()),
                    View<const T>(x), read.weights, read.pointwise, groups});
    Forward<T, A>& job = jobs.back();
    for (const size_t f : read.filters) {
      outputs[f] = layout::in_layout_of(x, job.p.mixes() ? job.p.mixed : job.p.c, job.p.out_h, job.p.out_w, x.scalar_type());
      job.outputs.push_back(View<T>(*outputs[f]));
    }
    job.table = empty_taps<A>(job.p), job.mixing.resize(read.pointwise.size());
    if (!normalize) continue;
    job.mean.resize(static_cast<size_t>(groups * channels)), job.rstd.resize(job.mean.size());
    if (!mean.has_value()) job.parts.assign(static_cast<size_t>(2 * job.p.n * job.p.blocks * kLanes<A>), 0.0);
    for (const auto& [given, own] : {std::pair(&mean, &job.mean), std::pair(&rstd, &job.rstd)}) {
      if (!given->has_value()) continue;
      const Tensor rows = torch::stable::contiguous(torch::stable::select(**given, 1, i));
      const Values<A> values(rows);
      for (size_t j = 0; j < own->size(); ++j) (*own)[j] = values.data[j % values.size];
    }
  }
  using Job = Forward<T, A>;
  for_tasks(jobs, [](const Job& job) { return job.filters(); }, [](Job& job, int64_t f) { job.prepare(f); },
            tables_worth_a_thread(jobs));
  if (normalize && !mean.has_value()) {
    for_tasks(jobs, [](const Job& job) { return job.p.n * job.p.blocks; }, [](Job& job, int64_t t) { job.add_moments(t); });
    for_tasks(jobs, [](const Job& job) { return job.groups; }, [eps](Job& job, int64_t g) { job.merge_moments(g, eps); });
  }
  for (Job& job : jobs) job.norms = norm_table<A>(job.p, job.mean, job.rstd);
  for_tasks(jobs, [](const Job& job) { return job.p.n * job.p.bands * job.p.panels; },
            [](const Job& job, int64_t t) { job.add_item(t); });
  const int64_t size[3] = {normalize ? groups : 0, count, channels};
  Result result{{}, layout::table(inputs[0], size, kScalarType<A>), layout::table(inputs[0], size, kScalarType<A>)};
  A* means = static_cast<A*>(std::get<1>(result).mutable_data_ptr());
  A* rstds = static_cast<A*>(std::get<2>(result).mutable_data_ptr());
  for (int64_t i = 0; i < count; ++i)
    for (int64_t g = 0; g < size[0]; ++g) {
      const Job& job = jobs[static_cast<size_t>(i)];
      std::copy_n(job.mean.data() + g * channels, channels, means + (g * count + i) * channels);
      std::copy_n(job.rstd.data() + g * channels, channels, rstds + (g * count + i) * channels);
    }
  for (const auto& out : outputs) std::get<0>(result).push_back(*out);
  return result;
}

}  // namespace

std::tuple<std::vector<Tensor>, Tensor, Tensor> relu_separable_conv2d(
    std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise,
    std::vector<int64_t> sources, std::vector<int64_t> dilations, int64_t stride, bool normalize,
    std::optional<Tensor> mean, std::optional<Tensor> rstd, int64_t groups, double eps) {
#if defined(DDARTS_NARROW_COPY)
  if (half_idle(inputs[0], inputs[0].size(1)))
    return DDARTS_NARROW_COPY::relu_separable_conv2d(inputs, weights, pointwise, sources, dilations, stride, normalize, mean,
                                                     rstd, groups, eps);
#endif
  Result result;
  with_dtype(inputs[0].scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    result = forward<scalar_t>(inputs, weights, pointwise, sources, dilations, stride, normalize, mean, rstd, groups, eps);
  });
  return result;
}

namespace {

Result relu_depthwise_conv2d(Tensor x, std::vector<Tensor> weights, std::vector<int64_t> dilations, int64_t stride,
                             bool normalize, std::optional<Tensor> mean, std::optional<Tensor> rstd, int64_t groups,
                             double eps) {
  check_relu_depthwise_conv2d(x, weights, dilations, stride, mean, rstd, groups);
  const auto of_one_input = [](const std::optional<Tensor>& s) {
    return s.has_value() ? std::optional<Tensor>(torch::stable::unsqueeze(*s, 1)) : std::nullopt;
  };
  auto [outputs, means, rstds] =
      relu_separable_conv2d({x}, weights, {}, std::vector<int64_t>(weights.size(), 0), dilations, stride, normalize,
                            of_one_input(mean), of_one_input(rstd), groups, eps);
  return {outputs, torch::stable::squeeze(means, 1), torch::stable::squeeze(rstds, 1)};
}

Result checked_relu_separable_conv2d(std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise,
                                     std::vector<int64_t> sources, std::vector<int64_t> dilations, int64_t stride,
                                     bool normalize, std::optional<Tensor> mean, std::optional<Tensor> rstd, int64_t groups,
                                     double eps, bool /* tf32: products are exact */) {
  check_relu_separable_conv2d(inputs, weights, pointwise, sources, dilations, stride, mean, rstd, groups);
  return relu_separable_conv2d(inputs, weights, pointwise, sources, dilations, stride, normalize, mean, rstd, groups, eps);
}

}  // namespace
}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) {
  m.impl("relu_depthwise_conv2d", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::relu_depthwise_conv2d));
  m.impl("relu_separable_conv2d", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::checked_relu_separable_conv2d));
}
