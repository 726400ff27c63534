// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, backward: one input, the filters that read it and the passes
// over it. The tasks are in relu_depthwise_conv2d_backward_tasks.cpp, the sums over them in ..._backward_sums.cpp.
#pragma once

#include "relu_depthwise_conv2d.h"
#include "relu_depthwise_conv2d_weights.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

constexpr int64_t kChunks = 64;
constexpr int64_t kPartialBytes = 1 << 20;  // of the sums for pointwise weights, which may cut the chunks to an eighth

// The gradient of an output: `grad` or, with terms, a grad + s branch + d (see OutputGradient).
template <typename T, typename A>
struct Incoming {
  View<const T> grad;
  View<const T> branch = {};
  Table<A> terms = {};  // [G][blocks][3][L]: a, s, d; empty without a branch
};

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
    const auto image = [&](ScalarType dtype) { return layout::in_layout_of(like, p.c, p.h, p.w, dtype); };
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
  void prepare(int64_t filter);
  // A chunk of a panel. dz (the scale of the norm left out) has dtype O.
  template <typename O>
  void accumulate(int64_t t);
  void clear_partials(int64_t chunk, int64_t panel);
  template <typename O>
  void add_item(int64_t item, int64_t chunk, int64_t panel, const View<O>& target);
  // The gradient of a depthwise output, from its row p.begin(band) on: where it is, or as padded tiles. `above`: rows of the
  // image before that one, `rows`: from it on; outside of them it is zero and not read.
  struct Gradient {
    Pixels<const A> pixels;
    int64_t above, rows;
    bool tile;
  };
  Gradient gradient_of(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a);
  // Back through a pointwise convolution: the gradient of the depthwise output into padded tiles, one a block of the
  // panel, and the gradient of the pointwise weight from that output, which is computed anew.
  void unmix(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a, Vector<A>* g,
             int64_t g_columns, int64_t g_tile);
  // Rows [low, high) of a gradient as blocks: where they are, or copied with zeros past the last column and channel.
  Pixels<const A> gradient_rows(size_t f, int64_t n, int64_t low, int64_t high) const;
  // Rows of a grad + s branch + d, a block of them.
  void load_terms(const Incoming<T, A>& from, int64_t n, int64_t block, int64_t first, int64_t rows, Vector<A>* to) const;
  // dz += the correlation of g with the filter, mirrored.
  void add_filter(const Filter& f, int64_t block, int64_t b, const Gradient& g, Vector<A>* dz, int64_t columns, int64_t rows,
                  bool add) const;
  // The mask of the ReLU, the sums of a norm if there are any, the way out. ahead: fetch the next row of `out`.
  template <typename O>
  void finish_row(const Vector<A>* a, Vector<A>* dz, double* sums, const Image<O>& out, int64_t row, bool ahead) const;
  // Means of dz and of dz xhat over a group, for the gradient through its statistics.
  void average(int64_t g);
  // What `normalize` does, as terms a dz + s x + d: rows of tables [G,I,C].
  void norm_terms(A* a, A* s, A* d, int64_t count, int64_t index) const;
  // dx from dz through the norm, an image and block; `means` are zeros where the statistics were given.
  template <typename O>
  void normalize(int64_t t);
  // sum over the chunks of partial[chunk * size + at + j], in order and in double, for `count` values of j.
  void total(const A* partial, int64_t size, int64_t at, int64_t count, A* out) const;
  // The gradient of one weight, in its dtype.
  void gather(int64_t i);
  void gather_depthwise(const Filter& filter, A* values) const;
  void gather_pointwise(int64_t f, A* values) const;
};

}  // namespace ddarts::DDARTS_CPU_COPY
