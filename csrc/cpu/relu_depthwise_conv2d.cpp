// relu_depthwise_conv2d on the CPU, forward.
//
//   out_f[n,c,i,j] = sum_{y,x} w_f[c,y,x] a[n,c,i*s + d_f*y - p_f,j*s + d_f*x - p_f],  a = relu(x) or relu((x - mean) rstd)
//
// A task is (sample, band of rows, block of channels): the band is read once into a tile of relu'd values, and every
// filter is computed from that tile. Deterministic: every output is one sum in a fixed order, and the statistics are
// merged over samples in order.

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

template <typename T, typename A>
void convolve(const Plan& p, const Tensor& x, const std::vector<A>& table, const A* mean, const A* rstd, int64_t groups,
              std::vector<Tensor>& outputs) {
  constexpr int L = kLanes<A>;
  const T* data = static_cast<const T*>(x.const_data_ptr());
  const Strides strides = strides_of(x);
  std::vector<T*> out;
  std::vector<CorrelateFunction<A>> functions;
  for (size_t f = 0; f < outputs.size(); ++f) {
    out.push_back(static_cast<T*>(outputs[f].mutable_data_ptr()));
    functions.push_back(select_correlate<A>(p.filters[f].k, p.filters[f].dilation, p.stride));
  }
  const Strides out_strides = strides_of(outputs[0]);
  const int64_t batch = std::max<int64_t>(1, p.n / groups);
  // Whole vectors of the accumulation type need no tile on the way out.
  const bool direct = std::is_same_v<T, A> && out_strides.c == 1 && p.c % L == 0 && p.out_w % kPixels == 0;
  torch::stable::parallel_for(0, p.n * p.bands * p.blocks, 1, [&](int64_t begin, int64_t end) {
    Vector<A>* tile = scratch<A>(0, p.in_rows * p.in_columns);
    Vector<A>* result = scratch<A>(1, direct ? 0 : p.band * p.out_columns);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t block = t % p.blocks, band = t / p.blocks % p.bands, n = t / p.blocks / p.bands;
      const int64_t first = p.begin(band), rows = p.end(band) - first;
      const Image<const T> image = image_at<const T, L>(data, strides, n, block, p.c, p.h, p.w);
      const Prologue<A> prologue = prologue_of<A>(p, mean, rstd, n / batch, block);
      load_tile<T, A>(image, first * p.stride - p.pad, (rows - 1) * p.stride + 1 + 2 * p.pad, p.pad, p.in_columns, tile,
                      &prologue);
      const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(table.data()) + block * p.taps;
      for (size_t f = 0; f < outputs.size(); ++f) {
        const Filter& filter = p.filters[f];
        const int64_t skip = p.pad - filter.pad;
        const Image<T> target = image_at<T, L>(out[f], out_strides, n, block, p.c, p.out_h, p.out_w);
        Correlation<A> job{tile + skip * p.in_columns + skip, p.in_columns, taps + filter.first,
                           static_cast<int>(filter.k), rows, p.out_columns,
                           reinterpret_cast<A*>(result), p.out_columns * L, L, false};
        if (direct) {
          job.out = reinterpret_cast<A*>(target.data + first * target.row);
          job.out_row = target.row, job.out_pixel = target.column;
        }
        functions[f](job);
        for (int64_t r = 0; !direct && r < rows; ++r) write_row<T, A>(target, first + r, result + r * p.out_columns);
      }
    }
  });
}

using Result = std::tuple<std::vector<Tensor>, Tensor, Tensor>;

template <typename T>
Result forward(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<int64_t>& dilations, int64_t stride,
               bool normalize, const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, int64_t groups,
               double eps) {
  using A = accumulate_t<T>;
  const Plan p = make_plan(x, weights, dilations, stride, kLanes<A>);
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
  for (size_t f = 0; f < weights.size(); ++f) outputs.push_back(empty_in_layout_of(x, p.out_h, p.out_w, x.scalar_type()));
  const std::vector<A> table =
      weight_table<A>(p, weights, [](const Filter& f, int64_t y, int64_t x) { return y * f.k + x; });
  convolve<T, A>(p, x, table, rows[0], rows[1], groups, outputs);
  return {outputs, statistics[0], statistics[1]};
}

Result relu_depthwise_conv2d(Tensor x, std::vector<Tensor> weights, std::vector<int64_t> dilations, int64_t stride,
                             bool normalize, std::optional<Tensor> mean, std::optional<Tensor> rstd, int64_t groups,
                             double eps) {
  Result result;
  THO_DISPATCH_V2(x.scalar_type(), "relu_depthwise_conv2d", AT_WRAP(([&] {
    result = forward<scalar_t>(x, weights, dilations, stride, normalize, mean, rstd, groups, eps);
  })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  return result;
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) { m.impl("relu_depthwise_conv2d", TORCH_BOX(&ddarts::relu_depthwise_conv2d)); }
