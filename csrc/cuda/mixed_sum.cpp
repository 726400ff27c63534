// mixed_sum on CUDA: tensors to tables of at most 96 branches a launch, scratch, registration.
#include "mixed_sum.h"

#include "../common/cuda_op.h"
#include "../common/mixed_sum_check.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using ddarts::DType;
using ddarts::MixedShape;
using ddarts::MixedTable;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

bool aligned(const Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0; }

// Branches in one layout, and what the launchers need to know of them.
struct Node {
  std::vector<Tensor> branches;
  MixedShape shape;
  ScalarType sums;

  Node(const std::vector<Tensor>& given, const Tensor& weights) {
    const Tensor& first = given[0];
    const bool last = ddarts::layout::channels_last(first);
    sums = ddarts::accumulate_dtype(given);
    const bool wide = sums == ScalarType::Double;
    const int64_t groups = weights.size(0);
    shape = {groups, first.size(0) / groups, first.size(1), first.size(2) * first.size(3), weights.size(1), last, wide, false};
    shape.packets = ddarts::mixed_sum_packets(shape);
    for (const Tensor& x : given) add(ddarts::layout::in_pieces(x, last));
  }
  void add(const Tensor& x) {
    branches.push_back(x);
    shape.packets = shape.packets && whole(x);
  }
  bool whole(const Tensor& x) const { return aligned(x) && pitch(x) % (shape.wide ? 2 : 4) == 0; }
  int32_t pitch(const Tensor& x) const {
    return static_cast<int32_t>(shape.channels_last && x.numel() > 0 ? ddarts::layout::pitch_of(x) : shape.channels_last ? shape.channels : 0);
  }
  Tensor like(ScalarType dtype) const {
    return ddarts::layout::like(branches[0], dtype, shape.channels_last);
  }
  Tensor scratch(std::initializer_list<int64_t> size) const {
    return torch::stable::new_empty(branches[0], std::vector<int64_t>(size), sums);
  }
  Tensor table(const Tensor& x) const {  // a small tensor as the kernels read it
    return ddarts::dense(x, sums);
  }
  bool empty() const { return shape.groups * shape.values() * shape.channels == 0; }

  // f(table, whether it is the first, whether it is the last) for the branches that are wanted, 96 at a time.
  template <typename F>
  void for_tables(const std::vector<bool>& wanted, const std::vector<bool>& flags, const std::vector<Tensor>* grads,
                  const F& f) const {
    std::vector<int32_t> chosen;
    for (size_t k = 0; k < branches.size(); ++k)
      if (wanted[k]) chosen.push_back(static_cast<int32_t>(k));
    for (size_t begin = 0; begin < chosen.size(); begin += ddarts::kMixedBranches) {
      MixedTable table{};
      const size_t end = std::min(chosen.size(), begin + ddarts::kMixedBranches);
      for (size_t i = begin; i < end; ++i) {
        const int32_t k = chosen[i];
        table.branch[table.count++] = {branches[k].const_data_ptr(), grads ? (*grads)[k].mutable_data_ptr() : nullptr, k, pitch(branches[k]),
                                       ddarts::dtype_of(branches[k]), static_cast<bool>(flags[k])};
      }
      f(table, begin == 0, end == chosen.size());
    }
  }
};

std::vector<bool> all(size_t count) { return std::vector<bool>(count, true); }

void statistics(const Node& node, const std::vector<bool>& normalize, double eps, const Tensor& mean, const Tensor& rstd,
                cudaStream_t stream) {
  const int64_t rows = std::min<int64_t>(ddarts::kMixedBranches, std::count(normalize.begin(), normalize.end(), true));
  const Tensor partial = node.scratch({rows, node.shape.groups, ddarts::mixed_sum_tiles(node.shape), 3, node.shape.channels});
  node.for_tables(normalize, normalize, nullptr, [&](const MixedTable& table, bool, bool) {
    DDARTS_CUDA_CHECK(ddarts::mixed_sum_statistics(node.shape, table, partial.mutable_data_ptr(), eps,
                                                   mean.mutable_data_ptr(), rstd.mutable_data_ptr(), stream));
  });
}

std::tuple<Tensor, Tensor, Tensor> mixed_sum(std::vector<Tensor> branches, Tensor weights, std::vector<bool> normalize,
                                             std::optional<Tensor> given_mean, std::optional<Tensor> given_rstd, double eps) {
  ddarts::check_mixed_sum(branches, weights, normalize, given_mean, given_rstd);
  const ddarts::DeviceStream device(branches[0]);
  Node node(branches, weights);
  weights = node.table(weights);
  const MixedShape& shape = node.shape;
  const Tensor mean = node.scratch({shape.groups, shape.branches, shape.channels});
  const Tensor rstd = node.scratch({shape.groups, shape.branches, shape.channels});
  const bool given = given_mean.has_value() && given_rstd.has_value();
  if (given) given_mean = node.table(*given_mean), given_rstd = node.table(*given_rstd);
  // The given rows, and else 0 and 1; the kernel of the output writes the latter where it runs. Then the batch's statistics.
  const bool fill = !given && !node.empty();
  if (!fill)
    node.for_tables(all(branches.size()), given ? normalize : std::vector<bool>(branches.size(), false), nullptr,
                    [&](const MixedTable& table, bool, bool) {
                      DDARTS_CUDA_CHECK(ddarts::mixed_sum_given(
                          shape, table, given ? given_mean->const_data_ptr() : nullptr,
                          given ? given_rstd->const_data_ptr() : nullptr, given ? given_mean->size(0) : 1,
                          mean.mutable_data_ptr(), rstd.mutable_data_ptr(), device.stream()));
                    });
  if (!given && std::find(normalize.begin(), normalize.end(), true) != normalize.end())
    statistics(node, normalize, eps, mean, rstd, device.stream());
  Tensor out = node.like(ddarts::promoted(branches));
  const Tensor carry = branches.size() > ddarts::kMixedBranches ? node.like(node.sums) : out;
  node.shape.packets = shape.packets && aligned(out) && aligned(carry);
  node.for_tables(all(branches.size()), normalize, nullptr, [&](const MixedTable& table, bool first, bool last) {
    DDARTS_CUDA_CHECK(ddarts::mixed_sum_output(shape, table, weights.const_data_ptr(), mean.mutable_data_ptr(),
                                               rstd.mutable_data_ptr(), fill, carry.mutable_data_ptr(), first, last,
                                               out.mutable_data_ptr(), ddarts::dtype_of(out), device.stream()));
  });
  return {out, mean, rstd};
}

std::tuple<std::vector<Tensor>, Tensor> mixed_sum_backward(Tensor grad, std::vector<Tensor> branches, Tensor weights,
                                                           std::vector<bool> normalize, Tensor mean, Tensor rstd,
                                                           bool batch_statistics, bool weights_grad) {
  ddarts::check_mixed_sum_backward(grad, branches, weights, normalize, mean, rstd);
  const ddarts::DeviceStream device(branches[0]);
  Node node(branches, weights);
  const ScalarType weights_dtype = weights.scalar_type();
  const MixedShape& shape = node.shape;
  weights = node.table(weights), mean = node.table(mean), rstd = node.table(rstd);
  grad = ddarts::layout::in_pieces(grad, shape.channels_last);
  node.shape.packets = shape.packets && node.whole(grad) && aligned(mean) && aligned(rstd);
  std::vector<bool> centred(branches.size()), summed(branches.size());
  for (size_t k = 0; k < branches.size(); ++k) {
    centred[k] = batch_statistics && normalize[k];
    summed[k] = weights_grad || centred[k];
  }
  const int64_t rows = std::min<int64_t>(ddarts::kMixedBranches, std::count(summed.begin(), summed.end(), true));
  const std::vector<int64_t> size{shape.groups, shape.branches + 1, shape.channels};
  const Tensor sums = node.empty() ? torch::stable::new_zeros(grad, size, node.sums)
                                   : torch::stable::new_empty(grad, size, node.sums);
  const Tensor partial = node.scratch({rows + 1, shape.groups, ddarts::mixed_sum_tiles(shape), shape.channels});
  node.for_tables(summed, centred, nullptr, [&](const MixedTable& table, bool first, bool) {
    DDARTS_CUDA_CHECK(ddarts::mixed_sum_products(shape, table, grad.const_data_ptr(), ddarts::dtype_of(grad), node.pitch(grad),
                                                 mean.const_data_ptr(), rstd.const_data_ptr(), partial.mutable_data_ptr(),
                                                 first, sums.mutable_data_ptr(), device.stream()));
  });
  std::vector<Tensor> grads;
  for (const Tensor& x : branches) {
    grads.push_back(node.like(x.scalar_type()));
    node.shape.packets = shape.packets && aligned(grads.back());
  }
  const Tensor d_weights = node.empty() ? torch::stable::new_zeros(weights, weights.sizes(), node.sums)
                                        : node.scratch({shape.groups, shape.branches});
  node.for_tables(all(branches.size()), centred, &grads, [&](const MixedTable& table, bool first, bool) {
    DDARTS_CUDA_CHECK(ddarts::mixed_sum_gradients(shape, table, grad.const_data_ptr(), ddarts::dtype_of(grad), node.pitch(grad),
                                                  weights.const_data_ptr(), mean.const_data_ptr(), rstd.const_data_ptr(),
                                                  sums.const_data_ptr(), weights_grad,
                                                  first ? d_weights.mutable_data_ptr() : nullptr, device.stream()));
  });
  return {grads, weights_dtype == node.sums ? d_weights : torch::stable::to(d_weights, weights_dtype)};
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("mixed_sum", TORCH_BOX(&mixed_sum));
  m.impl("mixed_sum_backward", TORCH_BOX(&mixed_sum_backward));
}

}  // namespace
