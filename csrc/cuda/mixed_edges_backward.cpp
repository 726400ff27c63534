// mixed_edges on CUDA, backward: the sums that norms need, coefficients of all gradients, second stages, first stages, pools and
// skips; for all edges a launch each, or two.
#include "mixed_edges_call.h"

namespace {

using ddarts::EdgesCall;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct Backward {
  EdgesCall call;
  cudaStream_t stream;
  bool batch_statistics;
  std::vector<Tensor> grads, outputs, inner, pooled, branches;
  std::vector<Tensor> depthwise, pointwise;
  Tensor mean, rstd, inner_mean, inner_rstd;
  Tensor coefficients;  // [3,G,K+S,C]: of the branches, then of the second stages' inputs
  std::vector<Tensor> d_filters;  // depthwise, then pointwise ones, if wanted
  std::optional<Tensor> dx = std::nullopt;

  Backward(const ddarts::EdgeNumbers& numbers, const std::vector<Tensor>& grads_, const Tensor& x, const Tensor& weights,
           const std::vector<Tensor>& saved, const std::vector<Tensor>& depthwise_, const std::vector<Tensor>& pointwise_,
           const Tensor& mean_, const Tensor& rstd_, const Tensor& inner_mean_, const Tensor& inner_rstd_, bool batch, cudaStream_t stream_, bool tf32)
      : call(numbers, x, weights, tf32), stream(stream_), batch_statistics(batch), depthwise(depthwise_), pointwise(pointwise_),
        mean(ddarts::dense(mean_, call.sums_dtype)), rstd(ddarts::dense(rstd_, call.sums_dtype)),
        inner_mean(ddarts::dense(inner_mean_, call.sums_dtype)), inner_rstd(ddarts::dense(inner_rstd_, call.sums_dtype)),
        coefficients(call.scratch({3, call.groups, call.branches() + call.second_stages(), call.channels})) {
    grads = ddarts::in_layout(grads_, call.last);
    const auto image = [&](const Tensor& found) { return found.dim() == 4 ? ddarts::layout::as(found, call.last) : found; };
    for (int64_t i = 0; i < static_cast<int64_t>(saved.size()); ++i) {
      const int64_t place = i - call.firsts();
      (place < 0 ? outputs : place < call.second_stages() ? inner : pooled).push_back(image(saved[static_cast<size_t>(i)]));
    }
    for (const int64_t kind : call.kinds)
      branches.push_back(kind >= 0 ? outputs[static_cast<size_t>(kind)] : kind == ddarts::kSkip ? call.x : pooled[kind == ddarts::kAverage]);
    call.shape.packets = call.shape.packets && ddarts::aligned(grads) && ddarts::aligned(branches) && ddarts::aligned({mean});
  }

  bool centred(size_t k) const { return batch_statistics && call.normalize[k]; }

  // Coefficients of the branches, and the gradients [G,K] of the weights, if wanted.
  Tensor terms(bool weights_grad) {
    std::vector<bool> summed(call.kinds.size());
    for (size_t k = 0; k < summed.size(); ++k) summed[k] = weights_grad || centred(k);
    const int64_t branches_ = call.branches(), rows = branches_ + call.second_stages();
    const Tensor d_weights = call.scratch({weights_grad ? call.groups : 0, branches_});
    if (call.empty()) return weights_grad ? torch::stable::zero_(const_cast<Tensor&>(d_weights)) : d_weights;
    const Tensor partial = call.scratch({branches_ + call.sums, call.groups, ddarts::mixed_sum_tiles(call.shape), call.channels});
    call.in_launches(branches, summed, call.normalize, [&](const ddarts::MixedTable& table, ddarts::EdgesTargets& targets) {
      for (int i = 0; i < targets.count; ++i) targets.target[i].grad = grads[static_cast<size_t>(targets.target[i].target)].const_data_ptr();
      DDARTS_CUDA_CHECK(ddarts::mixed_edges_products(call.shape, table, targets, mean.const_data_ptr(), partial.mutable_data_ptr(), call.dtype(), stream));
    });
    ddarts::EdgesTerms table{};
    table.rows = rows, table.weights_grad = weights_grad;
    const auto flush = [&] {
      DDARTS_CUDA_CHECK(ddarts::mixed_edges_coefficients(call.shape, table, partial.const_data_ptr(), call.weights.const_data_ptr(), mean.const_data_ptr(),
                                                         rstd.const_data_ptr(), coefficients.mutable_data_ptr(), d_weights.mutable_data_ptr(), stream));
      table.count = 0;
    };
    for (size_t k = 0; k < call.kinds.size(); ++k) {
      if (table.count == ddarts::kMixedBranches) flush();
      table.term[table.count++] = {static_cast<int32_t>(k), static_cast<int32_t>(call.targets[k]), centred(k), static_cast<bool>(summed[k])};
    }
    flush();
    return d_weights;
  }

  // Of one call of convolutions. of: the stages, from `offset` on, that its filters are.
  template <typename Fill>
  void stages(ddarts::SeparableCall& stage, const std::vector<int64_t>& of, int64_t offset, const std::vector<Tensor>& d_inputs, const Fill& fill) {
    ddarts::SeparableProblem& p = stage.problem;
    p.coefficients = coefficients.mutable_data_ptr(), p.coefficient_rows = coefficients.size(2);
    p.coefficient_plane = call.groups * p.coefficient_rows * call.channels;
    p.out_packets = stage.packets(grads, p.out_c) && ddarts::aligned(outputs) && ddarts::aligned(inner);
    std::vector<Tensor> own;
    for (size_t half = 0; half < d_filters.size(); half += depthwise.size()) {
      const std::vector<Tensor> found = ddarts::chosen(d_filters, of, offset + static_cast<int64_t>(half));
      own.insert(own.end(), found.begin(), found.end());
    }
    ddarts::separable_gradients(stage, d_inputs, own, p.before_norm, stream, fill);
  }

  void of_branch(ddarts::SeparableFilter& filter, size_t f) const {
    const auto k = static_cast<size_t>(call.branch_of[f]);
    filter.data = const_cast<void*>(grads[static_cast<size_t>(call.targets[k])].const_data_ptr());
    filter.y = centred(k) ? outputs[f].const_data_ptr() : nullptr;
    filter.row = static_cast<int32_t>(k);
  }

  void convolutions(bool input_grad, bool parameters) {
    if (parameters) d_filters = ddarts::side_by_side(depthwise, pointwise);
    if (call.empty())
      for (Tensor& tensor : d_filters) torch::stable::zero_(tensor);
    if (call.firsts() == 0 || call.empty() || !(input_grad || parameters)) return;
    std::vector<Tensor> d_inner;
    if (call.second_stages() > 0) {
      ddarts::SeparableCall second = call.second_stages_of(inner, depthwise, pointwise);
      for (int64_t s = 0; s < call.second_stages(); ++s) d_inner.push_back(call.image());
      second.problem.mean = inner_mean.const_data_ptr(), second.problem.rstd = inner_rstd.const_data_ptr();
      second.problem.before_norm = batch_statistics, second.problem.norm_row = static_cast<int>(call.branches());
      stages(second, ddarts::counted(call.seconds.size()), call.firsts(), d_inner,
             [&](ddarts::SeparableFilter& filter, size_t s) { of_branch(filter, static_cast<size_t>(call.seconds[s])); });
    }
    ddarts::SeparableCall first = call.first_stages(depthwise, pointwise);
    std::vector<Tensor> d_x;
    if (input_grad) d_x.push_back(ddarts::layout::like(call.x, call.x.scalar_type(), call.last));
    stages(first, call.order, 0, d_x, [&](ddarts::SeparableFilter& filter, size_t place) {
      if (place >= call.seconds.size()) return of_branch(filter, static_cast<size_t>(call.order[place]));
      filter.data = const_cast<void*>(d_inner[place].const_data_ptr());
      if (!batch_statistics) return;  // of the norm's input already
      filter.y = inner[place].const_data_ptr(), filter.row = static_cast<int32_t>(call.kinds.size() + place);
    });
    if (input_grad) dx = d_x[0];
  }

  void pools_and_skips() {
    ddarts::EdgesInput input{};
    const int64_t ops[3] = {ddarts::kMaximum, ddarts::kAverage, ddarts::kSkip};  // in the order of EdgesKind
    std::vector<ddarts::EdgesInput::Entry> entries;
    for (size_t k = 0; k < call.kinds.size(); ++k) {
      const int64_t* op = std::find(ops, ops + 3, call.kinds[k]);
      if (op == ops + 3) continue;
      const void* grad = grads[static_cast<size_t>(call.targets[k])].const_data_ptr();
      const auto kind = static_cast<size_t>(op - ops);
      auto found = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.grad == grad && e.k[kind] < 0; });
      if (found == entries.end()) found = entries.insert(entries.end(), {grad, {-1, -1, -1}});
      found->k[kind] = static_cast<int32_t>(k);
      input.has[kind] = true;
      if (centred(k)) input.y[kind] = branches[k].const_data_ptr();
    }
    input.add = dx.has_value();
    if (!dx) dx = ddarts::layout::like(call.x, call.x.scalar_type(), call.last);
    if (call.empty()) return;
    input.n = call.x.size(0), input.c = call.channels, input.h = call.x.size(2), input.w = call.x.size(3);
    input.out_h = call.height, input.out_w = call.width, input.batch = call.shape.batch;
    input.stride = static_cast<int>(call.stride), input.channels_last = call.last;
    if (input.has[ddarts::kEdgesMaximum]) input.argmax = pooled[2].const_data_ptr<uint8_t>();
    input.coefficients = coefficients.const_data_ptr(), input.rows = coefficients.size(2);
    input.packets = call.last && call.shape.packets && ddarts::aligned({*dx});
    if (input.argmax != nullptr) input.packets = input.packets && reinterpret_cast<uintptr_t>(input.argmax) % 4 == 0;
    input.dx = dx->mutable_data_ptr();
    for (size_t begin = 0; begin < entries.size(); begin += ddarts::kMixedBranches) {
      input.count = static_cast<int>(std::min<size_t>(entries.size() - begin, ddarts::kMixedBranches));
      std::copy_n(entries.begin() + static_cast<int64_t>(begin), input.count, input.entry);
      DDARTS_CUDA_CHECK(ddarts::mixed_edges_input(call.dtype(), input, stream));
      input.add = true;
    }
  }
};

std::vector<Tensor> mixed_edges_backward(std::vector<Tensor> grads, Tensor x, std::vector<Tensor> depthwise, std::vector<Tensor> pointwise,
                                         Tensor weights, std::vector<Tensor> saved, std::vector<int64_t> targets, std::vector<int64_t> kinds,
                                         std::vector<int64_t> dilations, std::vector<int64_t> seconds, std::vector<bool> normalize, int64_t stride,
                                         Tensor mean, Tensor rstd, Tensor inner_mean, Tensor inner_rstd, bool batch_statistics, bool input_grad,
                                         bool parameters_grad, bool weights_grad, bool tf32) {
  const ddarts::EdgeNumbers numbers{targets, kinds, dilations, seconds, normalize, static_cast<int64_t>(grads.size()), stride};
  ddarts::check_mixed_edges_backward(grads, x, depthwise, pointwise, weights, saved, numbers, mean, rstd, inner_mean, inner_rstd);
  const ddarts::DeviceStream device(x);
  Backward pass(numbers, grads, x, weights, saved, depthwise, pointwise, mean, rstd, inner_mean, inner_rstd, batch_statistics, device.stream(), tf32);
  const Tensor d_weights = pass.terms(weights_grad);
  pass.convolutions(input_grad, parameters_grad);
  std::vector<Tensor> found;
  if (input_grad) {
    pass.pools_and_skips();
    found.push_back(ddarts::layout::as(*pass.dx, ddarts::layout::channels_last(x)));
  }
  if (weights_grad) found.push_back(weights.scalar_type() == pass.call.sums_dtype ? d_weights : torch::stable::to(d_weights, weights.scalar_type()));
  found.insert(found.end(), pass.d_filters.begin(), pass.d_filters.end());
  return found;
}

DDARTS_CUDA_KERNELS(m) { m.impl("mixed_edges_backward", TORCH_BOX(&mixed_edges_backward)); }

}  // namespace
