// recurrent_node: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

constexpr size_t kRecurrentStates = 32;
constexpr int64_t kRecurrentActivations = 4;  // tanh, relu, sigmoid, identity

inline void check_recurrent_node(check::Op& op, const std::vector<Tensor>& states, const std::vector<Tensor>& gates,
                                 const Tensor& weights, const std::vector<int64_t>& activations) {
  op.require(!states.empty() && states.size() <= kRecurrentStates, "states must be 1 to ", kRecurrentStates,
             " tensors, got ", states.size());
  op.count("gates", gates.size(), states.size());
  op.tensor("states", states[0], {check::kAny, check::kAny});
  const int64_t batch = states[0].size(0), hidden = states[0].size(1);
  op.tensors("states", states, std::vector<int64_t>{batch, hidden}, states[0].scalar_type());
  op.tensors("gates", gates, std::vector<int64_t>{batch, 2 * hidden}, states[0].scalar_type());
  int64_t seen = 0;
  for (const int64_t activation : activations) {
    op.require(activation >= 0 && activation < kRecurrentActivations, "activations must be from 0 to 3, got ", activation);
    op.require((seen >> activation & 1) == 0, "activations must be distinct, got ", activation, " twice");
    seen |= int64_t{1} << activation;
  }
  op.require(seen != 0, "activations must be at least one");
  op.tensor("weights", weights,
            {static_cast<int64_t>(states.size()), static_cast<int64_t>(activations.size())});
}

inline void check_recurrent_node(const std::vector<Tensor>& states, const std::vector<Tensor>& gates, const Tensor& weights,
                                 const std::vector<int64_t>& activations) {
  check::Op op("recurrent_node");
  check_recurrent_node(op, states, gates, weights, activations);
}

inline void check_recurrent_node_backward(const Tensor& grad, const std::vector<Tensor>& states,
                                          const std::vector<Tensor>& gates, const Tensor& weights,
                                          const std::vector<int64_t>& activations) {
  check::Op op("recurrent_node_backward");
  check_recurrent_node(op, states, gates, weights, activations);
  op.tensor("grad", grad, check::Op::shape_of(states[0]), states[0].scalar_type());
}

// x itself if the values of a row lie side by side, else a copy in which they do.
inline Tensor dense_rows(const Tensor& x) {
  if (x.size(1) <= 1 || x.stride(1) == 1) return x;
  return torch::stable::contiguous(x);
}

}  // namespace
}  // namespace ddarts
