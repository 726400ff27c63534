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


#include "relu_depthwise_conv2d.h"
#include "relu_depthwise_conv2d_correlation.h"
#include "relu_depthwise_conv2d_weights.h"

namespace ddarts {
namespace {

using DDARTS_CPU_COPY::OutputGradient;

constexpr int64_t kChunks = 64;
constexpr int64_t kPartialBytes = 1 << 20;  // of the sums for pointwise weights, which may cut the chunks to an eighth

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

// The gradient of an output: `grad` or, with terms, a grad + s branch + d (see OutputGradient).
template <typename T, typename A>
struct Incoming {
  View<const T> grad;
  View<const T> branch = {};
  Table<A> terms = {};  // [G][blocks][3][L]: a, s, d; empty without a branch
};

template <typename T, typename A>
Incoming<T, A> incoming_of(const OutputGradient& from, int64_t groups) {
  constexpr int L = kLanes<A>;
  Incoming<T, A> result{View<const T>(from.grad)};
  if (!from.branch.has_value()) return result;
  const int64_t channels = from.branch->size(1), blocks = (channels + L - 1) / L;
  result.branch = View<const T>(*from.branch);
  result.terms.assign(static_cast<size_t>(groups * blocks * 3 * L), A(0));
  for (int64_t i = 0; i < groups * 3 * channels; ++i) {
    const int64_t g = i / (3 * channels), term = i / channels % 3, c = i % channels;
    result.terms[static_cast<size_t>(((g * blocks + c / L) * 3 + term) * L + c % L)] =
        static_cast<const A*>(from.terms[static_cast<size_t>(term)])[(g * from.count + from.index) * channels + c];
  }
  return result;
}

// One input and the filters that read it.
template <typename T, typename A>
struct Backward {
  static constexpr int L = kLanes<A>;
  Plan p;
  View<const T> x;
  std::vector<Incoming<T, A>> grads;
  std::vector<Tensor> weights, pointwise;
  int64_t groups;
  bool input_grad, weights_grad;
  bool adds = false;                  // dx to what is there
  Table<A> norms = {};                // mean and rstd as of norm_table
  Table<A> table = {};                // taps in the order of tap_position
  Table<A> forward_table = {};        // with pointwise convolutions: taps in the order of the forward
  std::vector<Table<A>> mixing = {};  // their weights, transposed
  A* partial_weights = nullptr;       // [chunks][blocks][taps][L]
  A* partial_mixing = nullptr;        // [chunks][filters][mixed_blocks * L][blocks][L]
  std::vector<double> partial_sums = {};  // [samples * bands][blocks][2][L]: sums of dz and of dz * a (a = xhat where dz is not 0)
  std::vector<A> means = {};              // [G][blocks][2][L]: partial_sums over the values of a group
  std::optional<Tensor> dx = {}, dz = {}; // dz: before the norm; dx itself where that loses nothing
  std::vector<Tensor> dweights = {};      // the depthwise ones, then the pointwise ones

  int64_t batch() const { return std::max<int64_t>(1, p.n / groups); }
  int64_t filters() const { return static_cast<int64_t>(weights.size()); }
  int64_t items() const { return p.n * p.bands; }
  int64_t mixing_size() const { return p.mixed_blocks * L * p.blocks * L; }  // of one filter
  int64_t chunks() const {
    const int64_t bytes = filters() * static_cast<int64_t>(sizeof(A)) * mixing_size();
    return std::min(p.mixes() ? std::clamp(kPartialBytes / bytes, kChunks / 8, kChunks) : kChunks, items());
  }
  int64_t width() const { return (p.w + 8 * p.stride - 1) / (8 * p.stride) * (8 * p.stride); }  // of the tile of dz
  int64_t item_rows(int64_t band) const { return std::min(p.h, p.end(band) * p.stride) - p.begin(band) * p.stride; }

  // `like`: the input. into: what dx is added to.
  void allocate(const Tensor& like, bool keep_dz, const std::optional<Tensor>& into) {
    const auto image = [&](torch::headeronly::ScalarType dtype) { return empty_in_layout_of(like, p.c, p.h, p.w, dtype); };
    if (input_grad) {
      adds = into.has_value();
      dx = adds ? *into : image(like.scalar_type()), dz = keep_dz ? image(kScalarType<A>) : *dx;
      table = empty_taps<A>(p);
    }
    if (p.mixes()) forward_table = empty_taps<A>(p), mixing.resize(weights.size());
    if (!weights_grad) return;
    for (const auto* filters : {&weights, &pointwise})
      for (const Tensor& weight : *filters)
        dweights.push_back(layout::empty(weight, {weight.size(0), weight.size(1), weight.size(2), weight.size(3)},
                                         weight.scalar_type(), false));
  }

  // Values of the partial sums of weights, and their place.
  int64_t partial_size() const {
    return weights_grad ? chunks() * (p.blocks * p.taps * L + (p.mixes() ? filters() * mixing_size() : 0)) : 0;
  }
  void put_partials(A* at) { partial_weights = at, partial_mixing = at + chunks() * p.blocks * p.taps * L; }

  void prepare(int64_t filter) {
    const size_t f = static_cast<size_t>(filter);
    const auto mirrored = [&](const Filter& g, int64_t i, int64_t j) { return tap_position(g, p.stride, i, j); };
    if (input_grad) fill_taps<A>(p, p.filters[f], weights[f], mirrored, table);
    if (!p.mixes()) return;
    fill_taps<A>(p, p.filters[f], weights[f], forward_position, forward_table);
    mixing[f] = mixing_table<A>(p, pointwise[f], true);
  }

  // A chunk of a panel. dz (the scale of the norm left out) has dtype O.
  template <typename O>
  void accumulate(int64_t t) {
    const int64_t chunk = t / p.panels, panel = t % p.panels;
    if (weights_grad) clear_partials(chunk, panel);
    const View<O> target = input_grad ? View<O>(*dz) : View<O>();
    for (int64_t item = chunk * items() / chunks(); item < (chunk + 1) * items() / chunks(); ++item)
      add_item(item, chunk, panel, target);
  }

  void clear_partials(int64_t chunk, int64_t panel) {
    const int64_t blocks = p.blocks_of(panel), first = panel * p.panel;
    std::fill_n(partial_weights + (chunk * p.blocks + first) * p.taps * L, blocks * p.taps * L, A(0));
    for (int64_t row = 0; row < (p.mixes() ? filters() * p.mixed_blocks * L : 0); ++row)
      std::fill_n(partial_mixing + ((chunk * filters() * p.mixed_blocks * L + row) * p.blocks + first) * L,
                  blocks * L, A(0));
  }

  template <typename O>
  void add_item(int64_t item, int64_t chunk, int64_t panel, const View<O>& target) {
    const int64_t band = item % p.bands, n = item / p.bands, first = p.begin(band), out_rows = p.end(band) - first;
    const int64_t blocks = p.blocks_of(panel), first_block = panel * p.panel;
    Vector<A>* a = scratch<A>(0, blocks * p.in_tile());
    load_activation<T, A>(p, x, norms, n, n / batch(), first_block, blocks, first * p.stride - p.pad,
                          out_rows * p.stride + 2 * p.pad, a);
    const int64_t rows = item_rows(band), columns = width(), dz_tile = p.band * p.stride * columns;
    Vector<A>* dz = scratch<A>(1, blocks * dz_tile);
    if (input_grad && p.stride == 2) std::fill(dz, dz + blocks * dz_tile, Vector<A>{});
    for (size_t f = 0; f < grads.size(); ++f) {
      const Filter& filter = p.filters[f];
      const int64_t skip = p.pad - filter.pad, top = first * p.stride;
      const Gradient g = gradient_of(f, n, band, chunk, panel, a);
      for (int64_t b = 0; b < blocks; ++b) {
        if (weights_grad) {
          A* dw = partial_weights + ((chunk * p.blocks + first_block + b) * p.taps + filter.first) * L;
          select_weight_gradient<A>(filter.k, filter.dilation, p.stride)(
              {g.pixels.data + b * g.pixels.block, g.pixels.row, g.pixels.pixel,
               a + b * p.in_tile() + skip * p.in_columns + skip, p.in_columns, out_rows, p.out_w, filter.pad - top,
               p.h + filter.pad - top, !g.tile && b == 0, reinterpret_cast<Vector<A>*>(dw)});
        }
        if (input_grad) add_filter(filter, first_block + b, b, g, dz + b * dz_tile, columns, rows, f > 0 || p.stride == 2);
      }
    }
    for (int64_t b = 0; input_grad && b < blocks; ++b)
      for (int64_t r = 0; r < rows; ++r) {
        double* sums = partial_sums.empty() ? nullptr : partial_sums.data() + (item * p.blocks + first_block + b) * 2 * L;
        const Vector<A>* tile = a + b * p.in_tile() + (p.pad + r) * p.in_columns + p.pad;
        finish_row(tile, dz + b * dz_tile + r * columns, sums, target.template image<A>(n, first_block + b),
                   first * p.stride + r, b == 0);
      }
  }

  // The gradient of a depthwise output, from its row p.begin(band) on: where it is, or as padded tiles. `above`: rows of the
  // image before that one, `rows`: from it on; outside of them it is zero and not read.
  struct Gradient {
    Pixels<const A> pixels;
    int64_t above, rows;
    bool tile;
  };

  Gradient gradient_of(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a) {
    const Strides& s = grads[f].grad.strides;
    const int64_t pad = p.filters[f].pad, first = p.begin(band), out_rows = p.end(band) - first;
    const int64_t blocks = p.blocks_of(panel), first_block = panel * p.panel;
    if (!p.mixes() && p.stride == 1 && in_blocks<T, A>(s, p.c, p.out_w)) {  // where it is: nothing to load beforehand
      const A* data = reinterpret_cast<const A*>(grads[f].grad.data) + n * s.n + first * s.h + first_block * L;
      return {{data, L, s.h, s.w}, first, p.out_h - first, false};
    }
    const int64_t columns = p.out_columns + 2 * pad, tile = (p.band + 2 * pad) * columns;
    Vector<A>* g = scratch<A>(2, blocks * tile);
    if (p.mixes()) {
      unmix(f, n, band, chunk, panel, a, g, columns, tile);
    } else {
      load_tiles<Prologue::none, T, A>(grads[f].grad, n, first_block, blocks, first - pad, out_rows + 2 * pad,
                                       {g, tile, columns, pad}, nullptr);
    }
    const A* data = reinterpret_cast<const A*>(g + pad * columns + pad);
    return {{data, tile * L, columns * L, L}, std::min(pad, first), std::min(out_rows + pad, p.out_h - first), true};
  }

  // Back through a pointwise convolution: the gradient of the depthwise output into padded tiles, one a block of the
  // panel, and the gradient of the pointwise weight from that output, which is computed anew.
  void unmix(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a, Vector<A>* g,
             int64_t g_columns, int64_t g_tile) {
    const Filter& filter = p.filters[f];
    const int64_t first = p.begin(band), out_rows = p.end(band) - first, blocks = p.blocks_of(panel), pad = filter.pad;
    const int64_t low = std::max<int64_t>(first - pad, 0), high = std::min(first + out_rows + pad, p.out_h);
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t r = 0; r < out_rows + 2 * pad; ++r) {
        Vector<A>* row = g + b * g_tile + r * g_columns;
        const bool outside = first - pad + r < low || first - pad + r >= high;
        clear<A>(row, outside ? g_columns : pad);
        clear<A>(row + pad + p.out_columns, pad);
      }
    const Pixels<const A> grad = gradient_rows(f, n, low, high);
    const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(mixing[f].data()) + panel * p.panel * p.mixed_blocks * L;
    mix<A>(grad, p.mixed_blocks, taps,
           {reinterpret_cast<A*>(g + (low - first + pad) * g_columns + pad), g_tile * L, g_columns * L, L}, blocks,
           high - low, p.out_columns);
    if (!weights_grad) return;
    const int64_t together = rows_together(p), size = together * p.out_columns;
    const Pixels<A> z{reinterpret_cast<A*>(scratch<A>(4, blocks * size)), size * L, p.out_columns * L, L};
    Vector<A>* dw = reinterpret_cast<Vector<A>*>(
        partial_mixing + (chunk * filters() + static_cast<int64_t>(f)) * mixing_size()) +
        panel * p.panel;
    for (int64_t row = 0; row < out_rows; row += together) {
      const int64_t rows = std::min(together, out_rows - row), skip = p.pad - pad, top = (first + row) * p.stride;
      for (int64_t b = 0; b < blocks; ++b)
        select_correlate<A>(filter.k, filter.dilation, p.stride, true)(
            {reinterpret_cast<const A*>(a + b * p.in_tile() + (row * p.stride + skip) * p.in_columns + skip),
             p.in_columns * L, L,
             reinterpret_cast<const Vector<A>*>(forward_table.data()) + (panel * p.panel + b) * p.taps + filter.first,
             static_cast<int>(filter.k), rows, p.out_columns, z.data + b * z.block, z.row, z.pixel, false, pad - top,
             p.h + pad - top, p.w == p.out_columns});
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
    const View<const T>& grad = grads[f].grad;
    const bool there = grads[f].terms.empty();
    if (there && in_blocks<T, A>(grad.strides, p.mixed, p.out_w)) {
      const A* data = reinterpret_cast<const A*>(grad.data);
      return {data + n * grad.strides.n + low * grad.strides.h, L, grad.strides.h, grad.strides.w};
    }
    const int64_t size = (high - low) * p.out_columns;
    Vector<A>* copy = scratch<A>(3, p.mixed_blocks * size);
    if (there) {
      load_tiles<Prologue::none, T, A>(grad, n, 0, p.mixed_blocks, low, high - low, {copy, size, p.out_columns, 0}, nullptr);
    } else {
      for (int64_t b = 0; b < p.mixed_blocks; ++b) load_terms(grads[f], n, b, low, high - low, copy + b * size);
    }
    return {reinterpret_cast<const A*>(copy), size * L, p.out_columns * L, L};
  }

  // Rows of a grad + s branch + d, a block of them.
  void load_terms(const Incoming<T, A>& from, int64_t n, int64_t block, int64_t first, int64_t rows, Vector<A>* to) const {
    const Image<const T> grad = from.grad.template image<A>(n, block), branch = from.branch.template image<A>(n, block);
    const Vector<A>* terms =
        reinterpret_cast<const Vector<A>*>(from.terms.data()) + (n / batch() * p.mixed_blocks + block) * 3;
    const Vector<A> by_gradient = terms[0], by_input = terms[1], constant = terms[2];
    Vector<A>* buffer = scratch<A>(5, p.out_columns);
    for (int64_t r = first; r < first + rows; ++r, to += p.out_columns) {
      const InRow<T, A> g(grad, r, to), x(branch, r, buffer);
      for (int64_t j = 0; j < p.out_w; ++j) to[j] = by_gradient * g.at(j) + (by_input * x.at(j) + constant);
      clear<A>(to + p.out_w, p.out_columns - p.out_w);
    }
  }

  // dz += the correlation of g with the filter, mirrored.
  void add_filter(const Filter& f, int64_t block, int64_t b, const Gradient& g, Vector<A>* dz, int64_t columns, int64_t rows,
                  bool add) const {
    const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(table.data()) + block * p.taps + f.first;
    const int64_t s = p.stride;
    for (int64_t i = 0; i < s; ++i)
      for (int64_t j = 0; j < s; ++j) {
        const Axis y = axis_of(f, s, i), x = axis_of(f, s, j);
        if (y.count == 0 || x.count == 0) continue;
        const A* corner = g.pixels.data + b * g.pixels.block + y.offset * g.pixels.row + x.offset * g.pixels.pixel;
        const Correlation<A> job{corner, g.pixels.row, g.pixels.pixel, taps, static_cast<int>(y.count),
                                 (rows - i + s - 1) / s, columns / s, reinterpret_cast<A*>(dz + i * columns + j),
                                 s * columns * L, s * L, add, -g.above - y.offset, g.rows - y.offset,
                                 s == 1 && p.w == p.out_columns};
        select_correlate<A>(x.count, s == 1 ? f.dilation : 1, 1, g.tile)(job);
        taps += y.count * x.count;
      }
  }

  // The mask of the ReLU, the sums of a norm if there are any, the way out. ahead: fetch the next row of `out`.
  template <typename O>
  void finish_row(const Vector<A>* a, Vector<A>* dz, double* sums, const Image<O>& out, int64_t row, bool ahead) const {
    const Vector<A> zero = {};
    const OutRow<O, A> target(out, row, dz);
    if (ahead && target.buffer == nullptr)
      for (int64_t j = 0; j < p.w; ++j) __builtin_prefetch(target.data + out.row + j * target.pixel, 1, 3);
    if (adds) {
      const InRow<O, A> there({out.data, out.channel, out.row, out.column, out.height, out.width, out.lanes}, row,
                              scratch<A>(5, p.w));
      for (int64_t j = 0; j < p.w; ++j) target.set(j, there.at(j) + (a[j] <= zero ? zero : dz[j]));
      target.flush();
      return;
    }
    if (sums == nullptr) {
      for (int64_t j = 0; j < p.w; ++j) target.set(j, a[j] <= zero ? zero : dz[j]);
      target.flush();
      return;
    }
    Vector<A> sum = {}, product = {};
    for (int64_t j = 0; j < p.w; ++j) {
      const Vector<A> v = a[j] <= zero ? zero : dz[j];
      target.set(j, v);
      sum += v;
      product += v * a[j];
    }
    target.flush();
    for (int l = 0; l < L; ++l) {
      sums[l] += reinterpret_cast<const A*>(&sum)[l];
      sums[L + l] += reinterpret_cast<const A*>(&product)[l];
    }
  }

  // Means of dz and of dz xhat over a group, for the gradient through its statistics.
  void average(int64_t g) {
    const double values = static_cast<double>(batch() * p.h * p.w);
    const int64_t row = p.blocks * 2 * L;
    for (int64_t i = 0; i < row; ++i) {
      double sum = 0;
      for (int64_t item = g * batch() * p.bands; item < (g + 1) * batch() * p.bands; ++item)
        sum += partial_sums[static_cast<size_t>(item * row + i)];
      means[static_cast<size_t>(g * row + i)] = static_cast<A>(sum / values);
    }
  }

  // What `normalize` does, as terms a dz + s x + d: rows of tables [G,I,C].
  void norm_terms(A* a, A* s, A* d, int64_t count, int64_t index) const {
    for (int64_t i = 0; i < groups * p.c; ++i) {
      const int64_t g = i / p.c, c = i % p.c, block = c / L, lane = c % L, at = (g * count + index) * p.c + c;
      const A* norm = norms.data() + (g * p.blocks + block) * 2 * L + lane;
      const A* m = means.data() + (g * p.blocks + block) * 2 * L + lane;
      const A scale = norm[L];
      a[at] = scale, s[at] = -scale * scale * m[L], d[at] = -s[at] * norm[0] - scale * m[0];
    }
  }

  // dx from dz through the norm, an image and block; `means` are zeros where the statistics were given.
  template <typename O>
  void normalize(int64_t t) {
    Vector<A>* row = scratch<A>(0, p.w);
    Vector<A>* grad = scratch<A>(1, p.w);
    const int64_t n = t / p.blocks, block = t % p.blocks;
    const Image<const T> image = x.template image<A>(n, block);
    const Image<const O> in = View<const O>(*dz).template image<A>(n, block);
    const Image<T> out = View<T>(*dx).template image<A>(n, block);
    const Vector<A>* norm = norm_of<A>(p, norms, n / batch(), block);
    const Vector<A>* m = reinterpret_cast<const Vector<A>*>(means.data()) + (n / batch() * p.blocks + block) * 2;
    const Vector<A> centre = norm[0], scale = norm[1], slope = scale * scale * m[1], rest = scale * m[0];
    for (int64_t r = 0; r < p.h; ++r) {
      const InRow<T, A> values(image, r, row);
      const InRow<O, A> gradient(in, r, grad);
      const OutRow<T, A> target(out, r, grad);
      for (int64_t j = 0; j < p.w; ++j) target.set(j, scale * gradient.at(j) - slope * (values.at(j) - centre) - rest);
      target.flush();
    }
  }

  // sum over the chunks of partial[chunk * size + at + j], in order and in double, for `count` values of j.
  void total(const A* partial, int64_t size, int64_t at, int64_t count, A* out) const {
    std::vector<double> sums(static_cast<size_t>(count), 0.0);
    for (int64_t i = 0; i < chunks(); ++i) {
      const A* part = partial + i * size + at;
      double* sum = sums.data();
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) sum[j] += static_cast<double>(part[j]);
    }
    std::copy(sums.begin(), sums.end(), out);
  }

  // The gradient of one weight, in its dtype.
  void gather(int64_t i) {
    Tensor& target = dweights[static_cast<size_t>(i)];
    std::vector<A> values(static_cast<size_t>(target.numel()));
    i < filters() ? gather_depthwise(p.filters[static_cast<size_t>(i)], values.data())
                  : gather_pointwise(i - filters(), values.data());
    THO_DISPATCH_V2(target.scalar_type(), "relu_depthwise_conv2d_backward", AT_WRAP(([&] {
      store_row<scalar_t, A>(values.data(), static_cast<scalar_t*>(target.mutable_data_ptr()), target.numel());
    })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
  }

  void gather_depthwise(const Filter& filter, A* values) const {
    const int64_t taps = filter.k * filter.k;
    std::vector<A> block(static_cast<size_t>(taps * L));
    for (int64_t b = 0; b < p.blocks; ++b) {
      total(partial_weights, p.blocks * p.taps * L, (b * p.taps + filter.first) * L, taps * L, block.data());
      for (int64_t c = b * L; c < std::min(p.c, (b + 1) * L); ++c)
        for (int64_t t = 0; t < taps; ++t) values[c * taps + t] = block[static_cast<size_t>(t * L + c % L)];
    }
  }

  void gather_pointwise(int64_t f, A* values) const {
    const int64_t size = filters() * mixing_size(), width = p.blocks * L, rows = width == p.c ? 1 : p.mixed;
    for (int64_t o = 0; o < rows; ++o)
      total(partial_mixing, size, f * mixing_size() + o * width, p.mixed * p.c / rows, values + o * p.c);
  }
};

}  // namespace
}  // namespace ddarts
