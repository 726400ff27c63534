// relu_depthwise_conv2d on the CPU, backward.
//
//   dz[i,j]  = [a > 0] sum_f sum_{y,x} w_f[y,x] g_f[(i + p - d y)/s,(j + p - d x)/s]     (where the quotients are integers)
//   dw_f[y,x] = sum_{n,i,j} g_f[i,j] a[i s + d y - p,j s + d x - p]
//   dx = dz, or r dz with given statistics, or r (dz - mean(dz) - xhat mean(dz xhat)) with those of the batch
//
// A task is (chunk of samples' bands, block of channels). For each band the input and, filter after filter, the incoming
// gradient are read once into tiles; the gradient's tile serves dw and dz. At stride 2, dz falls into four classes of
// pixels by the parity of row and column, each a dense correlation of g with the taps of its own parity.
// Deterministic: chunks follow from the sizes alone, each adds up in order, and their sums are added in order (in double).

#include "relu_depthwise_conv2d_core.h"
#include "relu_depthwise_conv2d_plan.h"

namespace ddarts {
namespace {

using torch::stable::Tensor;

constexpr int64_t kChunks = 64;

// Taps of one axis that reach pixels of one parity (stride 2; all pixels and taps at stride 1): tap `from`, from - step,
// ... `count` of them, read g at the pixel's own index (halved) plus offset, offset + 1 (times dilation at stride 1), ...
struct Axis {
  int64_t count, from, step, offset;
};

inline Axis axis_of(const Filter& f, int64_t stride, int64_t parity) {
  if (stride == 1) return {f.k, f.k - 1, 1, -f.pad};
  if (f.dilation == 2) return {parity == 0 ? f.k : 0, f.k - 1, 1, (f.pad - 2 * (f.k - 1)) / 2};
  const int64_t from = (f.k - 1 + f.pad + parity) % 2 == 0 ? f.k - 1 : f.k - 2;
  return {from / 2 + 1, from, 2, (parity + f.pad - from) / 2};
}

// Order of a filter's taps for the input gradient: class after class, within one in the order in which g is read.
inline int64_t tap_position(const Filter& f, int64_t stride, int64_t y, int64_t x) {
  int64_t first = 0;
  for (int64_t a = 0; a < stride; ++a)
    for (int64_t b = 0; b < stride; ++b) {
      const Axis rows = axis_of(f, stride, a), columns = axis_of(f, stride, b);
      if (rows.count == 0 || columns.count == 0) continue;
      const int64_t i = rows.from - y, j = columns.from - x;
      if (i >= 0 && j >= 0 && i % rows.step == 0 && j % columns.step == 0)
        return first + i / rows.step * columns.count + j / columns.step;
      first += rows.count * columns.count;
    }
  return 0;  // not reached: every tap belongs to one class
}

template <typename T, typename A>
struct Backward {
  static constexpr int L = kLanes<A>;
  const Plan& p;
  const Tensor& x;
  const std::vector<Tensor>& grads;
  int64_t batch;  // samples of a group
  const A *mean, *rstd;
  bool input_grad, weights_grad;
  std::vector<A> table;             // taps in the order of tap_position
  std::vector<A> partial_weights;   // [chunks][blocks][taps][L]
  std::vector<double> partial_sums; // [samples * bands][blocks][2][L]: sums of dz and of dz * a (a = xhat where dz is not 0)

  int64_t items() const { return p.n * p.bands; }
  int64_t chunks() const { return std::min(kChunks, items()); }
  int64_t width() const { return (p.w + 8 * p.stride - 1) / (8 * p.stride) * (8 * p.stride); }  // of the tile of dz
  int64_t item_rows(int64_t band) const { return std::min(p.h, p.end(band) * p.stride) - p.begin(band) * p.stride; }

  // dz (the scale of the norm left out) goes to `target`, a tensor like x of type O.
  template <typename O>
  void accumulate(O* target, const Strides& target_strides) {
    if (weights_grad) partial_weights.assign(static_cast<size_t>(chunks() * p.blocks * p.taps * L), A(0));
    if (input_grad) partial_sums.assign(static_cast<size_t>(items() * p.blocks * 2 * L), 0.0);
    torch::stable::parallel_for(0, chunks() * p.blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t chunk = t / p.blocks, block = t % p.blocks;
        for (int64_t item = chunk * items() / chunks(); item < (chunk + 1) * items() / chunks(); ++item)
          add_item(item, chunk, block, target, target_strides);
      }
    });
  }

  template <typename O>
  void add_item(int64_t item, int64_t chunk, int64_t block, O* target, const Strides& target_strides) {
    const int64_t band = item % p.bands, n = item / p.bands, first = p.begin(band), out_rows = p.end(band) - first;
    Vector<A>* a = scratch<A>(0, p.in_rows * p.in_columns + p.stride * p.in_columns);
    const Prologue<A> prologue = prologue_of<A>(p, mean, rstd, n / batch, block);
    const Image<const T> image =
        image_at<const T, L>(static_cast<const T*>(x.const_data_ptr()), strides_of(x), n, block, p.c, p.h, p.w);
    load_tile<T, A>(image, first * p.stride - p.pad, out_rows * p.stride + 2 * p.pad, p.pad, p.in_columns, a, &prologue);
    const int64_t rows = item_rows(band), columns = width();
    Vector<A>* dz = scratch<A>(1, p.band * p.stride * columns);
    if (input_grad && p.stride == 2) std::fill(dz, dz + rows * columns, Vector<A>{});
    for (size_t f = 0; f < grads.size(); ++f) {
      const Filter& filter = p.filters[f];
      const int64_t g_columns = p.out_columns + 2 * filter.pad, skip = p.pad - filter.pad;
      Vector<A>* g = scratch<A>(2, (p.band + 2 * filter.pad) * g_columns);
      const Image<const T> grad = image_at<const T, L>(static_cast<const T*>(grads[f].const_data_ptr()),
                                                       strides_of(grads[f]), n, block, p.c, p.out_h, p.out_w);
      load_tile<T, A>(grad, first - filter.pad, out_rows + 2 * filter.pad, filter.pad, g_columns, g,
                      static_cast<const Prologue<A>*>(nullptr));
      if (weights_grad) {
        A* dw = partial_weights.data() + ((chunk * p.blocks + block) * p.taps + filter.first) * L;
        select_weight_gradient<A>(filter.k, filter.dilation, p.stride)(
            {g + filter.pad * g_columns + filter.pad, g_columns, a + skip * p.in_columns + skip, p.in_columns, out_rows,
             p.out_w, reinterpret_cast<Vector<A>*>(dw)});
      }
      if (input_grad) add_filter(filter, block, g, g_columns, dz, columns, rows, f > 0 || p.stride == 2);
    }
    if (!input_grad) return;
    double* sums = partial_sums.data() + (item * p.blocks + block) * 2 * L;
    const Image<O> out = image_at<O, L>(target, target_strides, n, block, p.c, p.h, p.w);
    for (int64_t r = 0; r < rows; ++r) finish_row(a + (r + p.pad) * p.in_columns + p.pad, dz + r * columns, sums, out, first * p.stride + r);
  }

  // dz += the correlation of g with the filter, mirrored.
  void add_filter(const Filter& f, int64_t block, const Vector<A>* g, int64_t g_columns, Vector<A>* dz, int64_t columns,
                  int64_t rows, bool add) const {
    const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(table.data()) + block * p.taps + f.first;
    const int64_t s = p.stride;
    for (int64_t i = 0; i < s; ++i)
      for (int64_t j = 0; j < s; ++j) {
        const Axis y = axis_of(f, s, i), x = axis_of(f, s, j);
        if (y.count == 0 || x.count == 0) continue;
        const Correlation<A> job{g + (f.pad + y.offset) * g_columns + f.pad + x.offset, g_columns, taps,
                                 static_cast<int>(y.count), (rows - i + s - 1) / s, columns / s,
                                 reinterpret_cast<A*>(dz + i * columns + j), s * columns * L, s * L, add};
        select_correlate<A>(x.count, s == 1 ? f.dilation : 1, 1)(job);
        taps += y.count * x.count;
      }
  }

  // The mask of the ReLU, the sums of a norm, the way out.
  template <typename O>
  void finish_row(const Vector<A>* a, Vector<A>* dz, double* sums, const Image<O>& out, int64_t row) const {
    const Vector<A> zero = {};
    Vector<A> sum = {}, product = {};
    for (int64_t j = 0; j < p.w; ++j) {
      dz[j] = a[j] <= zero ? zero : dz[j];
      sum += dz[j];
      product += dz[j] * a[j];
    }
    for (int l = 0; l < L; ++l) {
      sums[l] += reinterpret_cast<const A*>(&sum)[l];
      sums[L + l] += reinterpret_cast<const A*>(&product)[l];
    }
    write_row<O, A>(out, row, dz);
  }

  // dx from dz with a norm. batch_statistics: through mean and rstd too.
  template <typename O>
  void normalize(const O* dz, const Strides& dz_strides, T* dx, const Strides& dx_strides, bool batch_statistics) const {
    const double values = static_cast<double>(batch * p.h * p.w);
    std::vector<A> means(static_cast<size_t>(p.n / batch * p.blocks * 2 * L), A(0));
    for (int64_t g = 0; batch_statistics && g < p.n / batch; ++g)
      for (int64_t i = 0; i < p.blocks * 2 * L; ++i) {
        double sum = 0;
        for (int64_t item = g * batch * p.bands; item < (g + 1) * batch * p.bands; ++item)
          sum += partial_sums[static_cast<size_t>(item * p.blocks * 2 * L + i)];
        means[static_cast<size_t>(g * p.blocks * 2 * L + i)] = static_cast<A>(sum / values);
      }
    torch::stable::parallel_for(0, p.n * p.blocks, 1, [&](int64_t begin, int64_t end) {
      Vector<A>* row = scratch<A>(0, p.w);
      Vector<A>* grad = scratch<A>(1, p.w);
      for (int64_t t = begin; t < end; ++t) {
        const int64_t n = t / p.blocks, block = t % p.blocks;
        const Image<const T> image =
            image_at<const T, L>(static_cast<const T*>(x.const_data_ptr()), strides_of(x), n, block, p.c, p.h, p.w);
        const Image<const O> in = image_at<const O, L>(dz, dz_strides, n, block, p.c, p.h, p.w);
        const Image<T> out = image_at<T, L>(dx, dx_strides, n, block, p.c, p.h, p.w);
        const Prologue<A> prologue = prologue_of<A>(p, mean, rstd, n / batch, block);
        const Vector<A>* m = reinterpret_cast<const Vector<A>*>(means.data()) + (n / batch * p.blocks + block) * 2;
        for (int64_t r = 0; r < p.h; ++r) {
          read_row<T, A>(image, r, row);
          read_row<O, A>(in, r, grad);
          for (int64_t j = 0; j < p.w; ++j)
            grad[j] = prologue.rstd * (grad[j] - m[0] - prologue.normalized(row[j]) * m[1]);
          write_row<T, A>(out, r, grad);
        }
      }
    });
  }

  // Sums of the chunks, in order, in the dtype of each filter.
  std::vector<Tensor> weight_gradients(const std::vector<Tensor>& weights) const {
    std::vector<Tensor> result;
    const int64_t chunk = p.blocks * p.taps * L;
    for (size_t f = 0; f < weights.size(); ++f) {
      const Filter& filter = p.filters[f];
      const int64_t taps = filter.k * filter.k, size[4] = {p.c, 1, filter.k, filter.k};
      std::vector<A> values(static_cast<size_t>(p.c * taps));
      for (int64_t c = 0; c < p.c; ++c)
        for (int64_t t = 0; t < taps; ++t) {
          const A* part = partial_weights.data() + (c / L * p.taps + filter.first + t) * L + c % L;
          double sum = 0;
          for (int64_t i = 0; i < chunks(); ++i) sum += part[i * chunk];
          values[static_cast<size_t>(c * taps + t)] = static_cast<A>(sum);
        }
      result.push_back(torch::stable::empty({size, 4}, weights[f].scalar_type()));
      THO_DISPATCH_V2(weights[f].scalar_type(), "relu_depthwise_conv2d_backward", AT_WRAP(([&] {
        store_row<scalar_t, A>(values.data(), static_cast<scalar_t*>(result.back().mutable_data_ptr()), p.c * taps);
      })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
    }
    return result;
  }
};

using Result = std::tuple<Tensor, std::vector<Tensor>>;

template <typename T>
Result backward(const std::vector<Tensor>& grads, const Tensor& x, const std::vector<Tensor>& weights,
                const std::vector<int64_t>& dilations, int64_t stride, bool normalize, const Tensor& mean,
                const Tensor& rstd, bool batch_statistics, int64_t groups, bool input_grad, bool weights_grad) {
  using A = accumulate_t<T>;
  const Plan p = make_plan(x, weights, dilations, stride, kLanes<A>);
  const auto statistic = [&](const Tensor& s) { return normalize ? static_cast<const A*>(s.const_data_ptr()) : nullptr; };
  Backward<T, A> work{p, x, grads, std::max<int64_t>(1, p.n / groups), statistic(mean), statistic(rstd), input_grad,
                      weights_grad, {}, {}, {}};
  const int64_t none = 0;
  Tensor dx = input_grad ? empty_in_layout_of(x, p.h, p.w, x.scalar_type())
                         : torch::stable::empty({&none, 1}, x.scalar_type());
  if (input_grad)
    work.table = weight_table<A>(
        p, weights, [&](const Filter& f, int64_t i, int64_t j) { return tap_position(f, stride, i, j); });
  T* out = static_cast<T*>(dx.mutable_data_ptr());
  const Strides strides = input_grad ? strides_of(dx) : Strides{};
  if (!normalize || !input_grad) {
    work.accumulate(out, strides);
  } else if constexpr (std::is_same_v<T, A>) {
    work.accumulate(out, strides);
    work.normalize(out, strides, out, strides, batch_statistics);
  } else {  // dz must not be rounded before it is centred
    Tensor dz = empty_in_layout_of(x, p.h, p.w, kScalarType<A>);
    A* data = static_cast<A*>(dz.mutable_data_ptr());
    work.accumulate(data, strides_of(dz));
    work.normalize(data, strides_of(dz), out, strides, batch_statistics);
  }
  return {dx, weights_grad ? work.weight_gradients(weights) : std::vector<Tensor>{}};
}

Result relu_depthwise_conv2d_backward(std::vector<Tensor> grads, Tensor x, std::vector<Tensor> weights,
                                      std::vector<int64_t> dilations, int64_t stride, bool normalize, Tensor mean,
                                      Tensor rstd, bool batch_statistics, int64_t groups, bool input_grad,
                                      bool weights_grad) {
  Result result;
  const Tensor means = torch::stable::contiguous(mean), rstds = torch::stable::contiguous(rstd);
  THO_DISPATCH_V2(x.scalar_type(), "relu_depthwise_conv2d_backward", AT_WRAP(([&] {
    result = backward<scalar_t>(grads, x, weights, dilations, stride, normalize, means, rstds, batch_statistics, groups,
                                input_grad, weights_grad);
  })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  return result;
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) { m.impl("relu_depthwise_conv2d_backward", TORCH_BOX(&ddarts::relu_depthwise_conv2d_backward)); }
