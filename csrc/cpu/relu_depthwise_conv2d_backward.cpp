// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, backward.
//
//   g_f = the incoming gradient, or u_f^T times it with pointwise weights u, whose gradient is du_f = sum_{n,i,j} gradient z_f^T
//   dz[i,j]  = [a > 0] sum_f sum_{y,x} w_f[y,x] g_f[(i + p - d y)/s,(j + p - d x)/s]     (where the quotients are integers)
//   dw_f[y,x] = sum_{n,i,j} g_f[i,j] a[i s + d y - p,j s + d x - p]
//   dx = dz, or r dz with given statistics, or r (dz - mean(dz) - xhat mean(dz xhat)) with those of the batch
//
// A task is (chunk of samples' bands, panel of channels). For each band the input and, filter after filter, the incoming
// gradient are read once into tiles; the gradient's tile serves dw and dz. At stride 2, dz falls into four classes of
// pixels by the parity of row and column, each a dense correlation of g with the taps of its own parity.
// Deterministic: chunks follow from the sizes alone, each adds up in order, and their sums are added in order (in double).

#include "relu_depthwise_conv2d_core.h"
#include "relu_depthwise_conv2d_plan.h"

namespace ddarts {
namespace {

using torch::stable::Tensor;

constexpr int64_t kChunks = 64;
constexpr int64_t kPartialBytes = 2 << 20;  // of the sums for pointwise weights, which may cut the chunks to an eighth

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
  std::vector<A> table;                  // taps in the order of tap_position
  std::vector<A> forward_table;          // with pointwise convolutions: taps in the order of the forward
  std::vector<std::vector<A>> mixing;    // their weights, transposed
  std::vector<A> partial_weights = {};   // [chunks][blocks][taps][L]
  std::vector<A> partial_mixing = {};    // [chunks][filters][mixed_blocks * L][blocks][L]
  std::vector<double> partial_sums = {}; // [samples * bands][blocks][2][L]: sums of dz and of dz * a (a = xhat where dz is not 0)

  int64_t items() const { return p.n * p.bands; }
  int64_t mixing_size() const { return p.mixed_blocks * L * p.blocks * L; }  // of one filter
  int64_t chunks() const {
    const int64_t bytes = static_cast<int64_t>(grads.size() * sizeof(A)) * mixing_size();
    return std::min(p.mixes() ? std::clamp(kPartialBytes / bytes, kChunks / 8, kChunks) : kChunks, items());
  }
  int64_t width() const { return (p.w + 8 * p.stride - 1) / (8 * p.stride) * (8 * p.stride); }  // of the tile of dz
  int64_t item_rows(int64_t band) const { return std::min(p.h, p.end(band) * p.stride) - p.begin(band) * p.stride; }

  // dz (the scale of the norm left out) goes to `target`, a tensor like x of type O.
  template <typename O>
  void accumulate(O* target, const Strides& target_strides) {
    if (weights_grad) {
      partial_weights.assign(static_cast<size_t>(chunks() * p.blocks * p.taps * L), A(0));
      partial_mixing.assign(static_cast<size_t>(chunks() * mixing_size()) * grads.size(), A(0));
    }
    if (input_grad) partial_sums.assign(static_cast<size_t>(items() * p.blocks * 2 * L), 0.0);
    torch::stable::parallel_for(0, chunks() * p.panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t chunk = t / p.panels, panel = t % p.panels;
        for (int64_t item = chunk * items() / chunks(); item < (chunk + 1) * items() / chunks(); ++item)
          add_item(item, chunk, panel, target, target_strides);
      }
    });
  }

  template <typename O>
  void add_item(int64_t item, int64_t chunk, int64_t panel, O* target, const Strides& target_strides) {
    const int64_t band = item % p.bands, n = item / p.bands, first = p.begin(band), out_rows = p.end(band) - first;
    const int64_t blocks = p.blocks_of(panel), first_block = panel * p.panel;
    Vector<A>* a = scratch<A>(0, blocks * p.in_tile());
    for (int64_t b = 0; b < blocks; ++b) {
      const Prologue<A> prologue = prologue_of<A>(p, mean, rstd, n / batch, first_block + b);
      const Image<const T> image =
          image_at<const T, L>(static_cast<const T*>(x.const_data_ptr()), strides_of(x), n, first_block + b, p.c, p.h, p.w);
      load_tile<T, A>(image, first * p.stride - p.pad, out_rows * p.stride + 2 * p.pad, p.pad, p.in_columns,
                      a + b * p.in_tile(), &prologue);
    }
    const int64_t rows = item_rows(band), columns = width(), dz_tile = p.band * p.stride * columns;
    Vector<A>* dz = scratch<A>(1, blocks * dz_tile);
    if (input_grad && p.stride == 2) std::fill(dz, dz + blocks * dz_tile, Vector<A>{});
    for (size_t f = 0; f < grads.size(); ++f) {
      const Filter& filter = p.filters[f];
      const int64_t g_columns = p.out_columns + 2 * filter.pad, skip = p.pad - filter.pad;
      const int64_t g_tile = (p.band + 2 * filter.pad) * g_columns;
      Vector<A>* g = scratch<A>(2, blocks * g_tile);
      if (p.mixes()) {
        unmix(f, n, band, chunk, panel, a, g, g_columns, g_tile);
      } else {
        for (int64_t b = 0; b < blocks; ++b)
          load_tile<T, A>(gradient_image(f, n, first_block + b), first - filter.pad, out_rows + 2 * filter.pad, filter.pad,
                          g_columns, g + b * g_tile, static_cast<const Prologue<A>*>(nullptr));
      }
      for (int64_t b = 0; b < blocks; ++b) {
        if (weights_grad) {
          A* dw = partial_weights.data() + ((chunk * p.blocks + first_block + b) * p.taps + filter.first) * L;
          select_weight_gradient<A>(filter.k, filter.dilation, p.stride)(
              {g + b * g_tile + filter.pad * g_columns + filter.pad, g_columns,
               a + b * p.in_tile() + skip * p.in_columns + skip, p.in_columns, out_rows, p.out_w,
               reinterpret_cast<Vector<A>*>(dw)});
        }
        if (input_grad)
          add_filter(filter, first_block + b, g + b * g_tile, g_columns, dz + b * dz_tile, columns, rows, f > 0 || p.stride == 2);
      }
    }
    for (int64_t b = 0; input_grad && b < blocks; ++b) {
      double* sums = partial_sums.data() + (item * p.blocks + first_block + b) * 2 * L;
      const Image<O> out = image_at<O, L>(target, target_strides, n, first_block + b, p.c, p.h, p.w);
      const Vector<A>* tile = a + b * p.in_tile() + p.pad * p.in_columns + p.pad;
      for (int64_t r = 0; r < rows; ++r)
        finish_row(tile + r * p.in_columns, dz + b * dz_tile + r * columns, sums, out, first * p.stride + r);
    }
  }

  Image<const T> gradient_image(size_t f, int64_t n, int64_t block) const {
    return image_at<const T, L>(static_cast<const T*>(grads[f].const_data_ptr()), strides_of(grads[f]), n, block,
                                p.mixes() ? p.mixed : p.c, p.out_h, p.out_w);
  }

  // Back through a pointwise convolution: the gradient of the depthwise output into padded tiles, one a block of the
  // panel, and the gradient of the pointwise weight from that output, which is computed anew.
  void unmix(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a, Vector<A>* g,
             int64_t g_columns, int64_t g_tile) {
    const Filter& filter = p.filters[f];
    const int64_t first = p.begin(band), out_rows = p.end(band) - first, blocks = p.blocks_of(panel), pad = filter.pad;
    const int64_t low = std::max<int64_t>(first - pad, 0), high = std::min(first + out_rows + pad, p.out_h);
    const Vector<A> zero = {};
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t r = 0; r < out_rows + 2 * pad; ++r) {
        Vector<A>* row = g + b * g_tile + r * g_columns;
        const bool outside = first - pad + r < low || first - pad + r >= high;
        std::fill(row, row + (outside ? g_columns : pad), zero);
        std::fill(row + pad + p.out_columns, row + g_columns, zero);
      }
    const Pixels<const A> grad = gradient_rows(f, n, low, high);
    const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(mixing[f].data()) + panel * p.panel;
    mix<A>(grad, p.mixed_blocks, taps, p.blocks,
           {reinterpret_cast<A*>(g + (low - first + pad) * g_columns + pad), g_tile * L, g_columns * L, L}, blocks,
           high - low, p.out_columns);
    if (!weights_grad) return;
    const int64_t together = std::max<int64_t>(1, 64 / p.out_columns), size = together * p.out_columns;
    const Pixels<A> z{reinterpret_cast<A*>(scratch<A>(4, blocks * size)), size * L, p.out_columns * L, L};
    Vector<A>* dw = reinterpret_cast<Vector<A>*>(
        partial_mixing.data() + (chunk * static_cast<int64_t>(grads.size()) + static_cast<int64_t>(f)) * mixing_size()) +
        panel * p.panel;
    for (int64_t row = 0; row < out_rows; row += together) {
      const int64_t rows = std::min(together, out_rows - row), skip = p.pad - pad;
      for (int64_t b = 0; b < blocks; ++b)
        select_correlate<A>(filter.k, filter.dilation, p.stride)(
            {a + b * p.in_tile() + (row * p.stride + skip) * p.in_columns + skip, p.in_columns,
             reinterpret_cast<const Vector<A>*>(forward_table.data()) + (panel * p.panel + b) * p.taps + filter.first,
             static_cast<int>(filter.k), rows, p.out_columns, z.data + b * z.block, z.row, z.pixel, false});
      const Pixels<const A> from{grad.data + (first + row - low) * grad.row, grad.block, grad.row, grad.pixel};
      const Pixels<const A> values{z.data, z.block, z.row, z.pixel};
      if (blocks == 2) {
        mix_gradient<A, 2>(from, p.mixed_blocks, values, rows, p.out_columns, dw, p.blocks);
      } else {
        mix_gradient<A, 1>(from, p.mixed_blocks, values, rows, p.out_columns, dw, p.blocks);
      }
    }
  }

  // Rows [low, high) of a gradient as blocks: where they are, or copied with zeros past the last column and channel.
  Pixels<const A> gradient_rows(size_t f, int64_t n, int64_t low, int64_t high) const {
    const Strides strides = strides_of(grads[f]);
    if (in_blocks<T, A>(strides, p.mixed, p.out_w)) {
      const A* data = static_cast<const A*>(grads[f].const_data_ptr());
      return {data + n * strides.n + low * strides.h, L, strides.h, strides.w};
    }
    const int64_t size = (high - low) * p.out_columns;
    Vector<A>* copy = scratch<A>(3, p.mixed_blocks * size);
    for (int64_t b = 0; b < p.mixed_blocks; ++b)
      load_tile<T, A>(gradient_image(f, n, b), low, high - low, 0, p.out_columns, copy + b * size,
                      static_cast<const Prologue<A>*>(nullptr));
    return {reinterpret_cast<const A*>(copy), size * L, p.out_columns * L, L};
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

  // Sums over the chunks, in order, in double.
  std::vector<double> totals(const std::vector<A>& partial, int64_t size) const {
    std::vector<double> sums(static_cast<size_t>(size), 0.0);
    for (int64_t i = 0; i < chunks(); ++i) {
      const A* part = partial.data() + i * size;
      double* sum = sums.data();
#pragma omp simd
      for (int64_t j = 0; j < size; ++j) sum[j] += static_cast<double>(part[j]);
    }
    return sums;
  }

  // In the dtype of each filter: the depthwise ones, then the pointwise ones.
  std::vector<Tensor> weight_gradients(const std::vector<Tensor>& weights, const std::vector<Tensor>& pointwise) const {
    std::vector<Tensor> result;
    const std::vector<double> filters = totals(partial_weights, p.blocks * p.taps * L);
    const std::vector<double> matrices = totals(partial_mixing, static_cast<int64_t>(pointwise.size()) * mixing_size());
    for (size_t f = 0; f < weights.size(); ++f) {
      const Filter& filter = p.filters[f];
      const int64_t taps = filter.k * filter.k;
      std::vector<A> values(static_cast<size_t>(p.c * taps));
      for (int64_t c = 0; c < p.c; ++c)
        for (int64_t t = 0; t < taps; ++t)
          values[static_cast<size_t>(c * taps + t)] =
              static_cast<A>(filters[static_cast<size_t>((c / L * p.taps + filter.first + t) * L + c % L)]);
      result.push_back(tensor_of(values, weights[f]));
    }
    for (size_t f = 0; f < pointwise.size(); ++f) {
      std::vector<A> values(static_cast<size_t>(p.mixed * p.c));
      for (int64_t o = 0; o < p.mixed; ++o)
        for (int64_t c = 0; c < p.c; ++c)
          values[static_cast<size_t>(o * p.c + c)] =
              static_cast<A>(matrices[f * static_cast<size_t>(mixing_size()) + static_cast<size_t>(o * p.blocks * L + c)]);
      result.push_back(tensor_of(values, pointwise[f]));
    }
    return result;
  }

  static Tensor tensor_of(const std::vector<A>& values, const Tensor& like) {
    const Tensor result = torch::stable::empty(like.sizes(), like.scalar_type());
    THO_DISPATCH_V2(like.scalar_type(), "relu_depthwise_conv2d_backward", AT_WRAP(([&] {
      store_row<scalar_t, A>(values.data(), static_cast<scalar_t*>(result.mutable_data_ptr()), result.numel());
    })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
    return result;
  }
};

using Result = std::tuple<Tensor, std::vector<Tensor>>;

template <typename T>
Result backward(const std::vector<Tensor>& grads, const Tensor& x, const std::vector<Tensor>& weights,
                const std::vector<Tensor>& pointwise, const std::vector<int64_t>& dilations, int64_t stride, bool normalize,
                const Tensor& mean, const Tensor& rstd, bool batch_statistics, int64_t groups, bool input_grad,
                bool weights_grad) {
  using A = accumulate_t<T>;
  const Plan p = make_plan(x, weights, pointwise, dilations, stride, kLanes<A>, false);
  const auto statistic = [&](const Tensor& s) { return normalize ? static_cast<const A*>(s.const_data_ptr()) : nullptr; };
  Backward<T, A> work{p, x, grads, std::max<int64_t>(1, p.n / groups), statistic(mean), statistic(rstd), input_grad,
                      weights_grad, {}, {}, mixing_tables<A>(p, pointwise, true)};
  const int64_t none = 0;
  Tensor dx = input_grad ? empty_in_layout_of(x, p.c, p.h, p.w, x.scalar_type())
                         : torch::stable::empty({&none, 1}, x.scalar_type());
  if (input_grad)
    work.table = weight_table<A>(
        p, weights, [&](const Filter& f, int64_t i, int64_t j) { return tap_position(f, stride, i, j); });
  if (p.mixes())
    work.forward_table = weight_table<A>(p, weights, [](const Filter& f, int64_t i, int64_t j) { return i * f.k + j; });
  T* out = static_cast<T*>(dx.mutable_data_ptr());
  const Strides strides = input_grad ? strides_of(dx) : Strides{};
  if (!normalize || !input_grad) {
    work.accumulate(out, strides);
  } else if constexpr (std::is_same_v<T, A>) {
    work.accumulate(out, strides);
    work.normalize(out, strides, out, strides, batch_statistics);
  } else {  // dz must not be rounded before it is centred
    Tensor dz = empty_in_layout_of(x, p.c, p.h, p.w, kScalarType<A>);
    A* data = static_cast<A*>(dz.mutable_data_ptr());
    work.accumulate(data, strides_of(dz));
    work.normalize(data, strides_of(dz), out, strides, batch_statistics);
  }
  return {dx, weights_grad ? work.weight_gradients(weights, pointwise) : std::vector<Tensor>{}};
}

Result relu_depthwise_conv2d_backward(std::vector<Tensor> grads, Tensor x, std::vector<Tensor> weights,
                                      std::vector<int64_t> dilations, int64_t stride, bool normalize, Tensor mean,
                                      Tensor rstd, bool batch_statistics, int64_t groups, bool input_grad,
                                      bool weights_grad) {
  Result result;
  const Tensor means = torch::stable::contiguous(mean), rstds = torch::stable::contiguous(rstd);
  THO_DISPATCH_V2(x.scalar_type(), "relu_depthwise_conv2d_backward", AT_WRAP(([&] {
    result = backward<scalar_t>(grads, x, weights, {}, dilations, stride, normalize, means, rstds, batch_statistics, groups,
                                input_grad, weights_grad);
  })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  return result;
}

// The gradients of the inputs, of the depthwise weights and of the pointwise weights, one after the other.
std::vector<Tensor> relu_separable_conv2d_backward(std::vector<Tensor> grads, std::vector<Tensor> inputs,
                                                   std::vector<Tensor> weights, std::vector<Tensor> pointwise,
                                                   std::vector<int64_t> sources, std::vector<int64_t> dilations,
                                                   int64_t stride, bool normalize, Tensor mean, Tensor rstd,
                                                   bool batch_statistics, int64_t groups, bool input_grad,
                                                   bool weights_grad) {
  std::vector<std::optional<Tensor>> found(inputs.size() + 2 * weights.size());
  THO_DISPATCH_V2(inputs[0].scalar_type(), "relu_separable_conv2d_backward", AT_WRAP(([&] {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Selection read = filters_of(static_cast<int64_t>(i), sources, weights, pointwise, dilations);
      std::vector<Tensor> incoming;
      for (const int64_t f : read.filters) incoming.push_back(grads[static_cast<size_t>(f)]);
      if (incoming.empty()) {
        if (!input_grad) continue;
        const Tensor& x = inputs[i];
        found[i] = empty_in_layout_of(x, x.size(1), x.size(2), x.size(3), x.scalar_type());
        torch::stable::zero_(*found[i]);
        continue;
      }
      const auto row = [&](const Tensor& s) {
        return torch::stable::contiguous(torch::stable::select(s, 1, static_cast<int64_t>(i)));
      };
      auto [dx, gradients] =
          backward<scalar_t>(incoming, inputs[i], read.weights, read.pointwise, read.dilations, stride, normalize, row(mean),
                             row(rstd), batch_statistics, groups, input_grad, weights_grad);
      if (input_grad) found[i] = dx;
      const size_t count = read.filters.size();
      for (size_t f = 0; weights_grad && f < count; ++f) {
        const size_t at = inputs.size() + static_cast<size_t>(read.filters[f]);
        found[at] = gradients[f], found[at + weights.size()] = gradients[count + f];
      }
    }
  })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  std::vector<Tensor> result;
  for (const auto& tensor : found)
    if (tensor.has_value()) result.push_back(*tensor);
  return result;
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) {
  m.impl("relu_depthwise_conv2d_backward", TORCH_BOX(&ddarts::relu_depthwise_conv2d_backward));
  m.impl("relu_separable_conv2d_backward", TORCH_BOX(&ddarts::relu_separable_conv2d_backward));
}
