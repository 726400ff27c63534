// mixed_edges on CUDA: what its forward and its backward share, edges as tables of launches.
#pragma once

#include "../common/edges.h"
#include "../common/mixed_edges_check.h"
#include "mixed_edges.h"
#include "pool3x3.h"
#include "relu_separable_conv2d_call.h"

#include <optional>
#include <tuple>

namespace ddarts {
namespace {

struct EdgesCall {
  const std::vector<int64_t>&targets, &kinds, &dilations, &seconds;
  const std::vector<bool>& normalize;
  const int64_t sums, stride;
  const bool last;
  const Tensor x, weights;
  const ScalarType sums_dtype;
  const int64_t groups, channels, height, width;  // of outputs
  MixedShape shape;
  std::vector<int64_t> branch_of;  // convolution -> branch
  bool tf32;
  std::vector<int64_t> order;      // of first stages in launches: those before second ones as these are, then the others

  EdgesCall(const EdgeNumbers& numbers, const Tensor& x_, const Tensor& weights_, bool tf32_)
      : targets(numbers.targets), kinds(numbers.kinds), dilations(numbers.dilations), seconds(numbers.seconds), normalize(numbers.normalize),
        sums(numbers.sums), stride(numbers.stride), last(layout::channels_last(x_)), x(layout::as(x_, last)),
        weights(dense(weights_, accumulate_dtype(x_))), sums_dtype(accumulate_dtype(x_)), groups(weights.size(0)), channels(x.size(1)),
        height((x.size(2) + stride - 1) / stride), width((x.size(3) + stride - 1) / stride), branch_of(dilations.size()),
        tf32(tf32_), order(seconds) {
    const int64_t n = x.size(0);
    shape = {groups, n / groups, channels, height * width, branches(), last, sums_dtype == ScalarType::Double, false};
    shape.packets = mixed_sum_packets(shape) && aligned({x});
    for (size_t k = 0; k < kinds.size(); ++k)
      if (kinds[k] >= 0) branch_of[static_cast<size_t>(kinds[k])] = static_cast<int64_t>(k);
    for (const int64_t f : counted(dilations.size()))
      if (std::count(seconds.begin(), seconds.end(), f) == 0) order.push_back(f);
  }

  int64_t branches() const { return static_cast<int64_t>(kinds.size()); }
  int64_t firsts() const { return static_cast<int64_t>(dilations.size()); }
  int64_t second_stages() const { return static_cast<int64_t>(seconds.size()); }
  bool has(int64_t kind) const { return std::count(kinds.begin(), kinds.end(), kind) > 0; }
  DType dtype() const { return dtype_of(x); }
  bool empty() const { return x.numel() == 0; }
  Tensor image() const { return layout::empty(x, {x.size(0), channels, height, width}, x.scalar_type(), last); }
  Tensor table(int64_t rows) const { return torch::stable::new_empty(x, {groups, rows, channels}, sums_dtype); }
  Tensor scratch(const std::vector<int64_t>& size) const { return torch::stable::new_empty(x, size, sums_dtype); }
  void* row(const Tensor& table_, int64_t row_) const {
    return static_cast<char*>(table_.mutable_data_ptr()) + row_ * channels * static_cast<int64_t>(size_of(dtype_of(table_)));
  }
  SeparableCall first_stages(const std::vector<Tensor>& depthwise, const std::vector<Tensor>& pointwise) const {
    return SeparableCall({x}, chosen(depthwise, order), chosen(pointwise, order), std::vector<int64_t>(order.size(), 0), chosen(dilations, order),
                         stride, groups, tf32);
  }
  SeparableCall second_stages_of(const std::vector<Tensor>& inner, const std::vector<Tensor>& depthwise, const std::vector<Tensor>& pointwise) const {
    const std::vector<int64_t> own = counted(seconds.size());
    return SeparableCall(inner, chosen(depthwise, own, firsts()), chosen(pointwise, own, firsts()), own, std::vector<int64_t>(own.size(), 1), 1,
                         groups, tf32);
  }

  // f(table of branches, their targets) for all branches that are wanted, target by target, as many as a launch takes. A target with
  // more branches than that has several turns.
  template <typename F>
  void in_launches(const std::vector<Tensor>& images, const std::vector<bool>& wanted, const std::vector<bool>& flags, const F& f) const {
    MixedTable table{};
    EdgesTargets entered{};
    const auto flush = [&] {
      if (entered.count > 0) f(table, entered);
      table.count = 0, entered.count = 0;
    };
    for (int64_t t = 0; t < sums; ++t) {
      std::vector<int32_t> own;
      for (size_t k = 0; k < kinds.size(); ++k)
        if (targets[k] == t && wanted[k]) own.push_back(static_cast<int32_t>(k));
      for (size_t begin = 0; begin < own.size();) {
        const size_t left = own.size() - begin;
        const bool fits = static_cast<int>(left) <= kMixedBranches - table.count;
        if (entered.count == kEdgesTargets || (!fits && table.count > 0)) flush();
        const size_t now = std::min<size_t>(left, static_cast<size_t>(kMixedBranches));
        EdgesTarget& target = entered.target[entered.count++];
        target = {};
        target.begin = table.count, target.target = static_cast<int32_t>(t);
        for (size_t i = begin; i < begin + now; ++i) {
          const auto k = static_cast<size_t>(own[i]);
          table.branch[table.count++] = {images[k].const_data_ptr(), nullptr, own[i], static_cast<int32_t>(channels), dtype(), static_cast<bool>(flags[k])};
        }
        target.end = table.count, begin += now;
      }
    }
    flush();
  }
};

}  // namespace
}  // namespace ddarts
