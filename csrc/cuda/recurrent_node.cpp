// recurrent_node and its backward on CUDA.
#include "recurrent_node.h"

#include "../common/cuda_op.h"
#include "../common/recurrent_node_check.h"

#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

static_assert(ddarts::kRecurrentRows == ddarts::kRecurrentStates);

// The rows of a call as a kernel takes them, and the tensors behind them.
struct Given {
  std::vector<Tensor> held;
  ddarts::RecurrentTable table{};
  ddarts::RecurrentShape shape{};
  Tensor weights;

  Given(const std::vector<Tensor>& states, const std::vector<Tensor>& gates, const Tensor& of_ops,
        const std::vector<int64_t>& activations)
      : weights(ddarts::dense(of_ops, ddarts::accumulate_dtype(states[0]))) {
    const int64_t packet = 16 / static_cast<int64_t>(ddarts::size_of(ddarts::dtype_of(states[0])));
    shape.batch = states[0].size(0), shape.hidden = states[0].size(1);
    shape.columns = static_cast<int>(activations.size());
    shape.packets = shape.hidden % packet == 0;
    for (int& column : shape.column) column = -1;
    for (size_t k = 0; k < activations.size(); ++k) shape.column[activations[k]] = static_cast<int>(k);
    table.count = static_cast<int>(states.size());
    for (size_t p = 0; p < states.size(); ++p) {
      add(states[p], packet, table.state[p], table.state_stride[p]);
      add(gates[p], packet, table.gates[p], table.gates_stride[p]);
    }
  }

 private:
  void add(const Tensor& x, int64_t packet, const void*& first, int64_t& stride) {
    held.push_back(ddarts::dense_rows(x));
    first = held.back().const_data_ptr();
    stride = held.back().stride(0);
    shape.packets = shape.packets && stride % packet == 0 && reinterpret_cast<uintptr_t>(first) % 16 == 0;
  }
};

Tensor recurrent_node(std::vector<Tensor> states, std::vector<Tensor> gates, Tensor weights,
                      std::vector<int64_t> activations) {
  ddarts::check_recurrent_node(states, gates, weights, activations);
  const ddarts::DeviceStream device(states[0]);
  Tensor out = torch::stable::new_empty(states[0], {states[0].size(0), states[0].size(1)});
  if (out.numel() == 0) return out;
  const Given given(states, gates, weights, activations);
  DDARTS_CUDA_CHECK(ddarts::recurrent_node(ddarts::dtype_of(out), given.table, given.shape, given.weights.const_data_ptr(),
                                           out.mutable_data_ptr(), device.stream()));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> recurrent_node_backward(Tensor grad, std::vector<Tensor> states, std::vector<Tensor> gates,
                                                           Tensor weights, std::vector<int64_t> activations) {
  ddarts::check_recurrent_node_backward(grad, states, gates, weights, activations);
  const ddarts::DeviceStream device(grad);
  const int64_t count = weights.size(0), batch = grad.size(0), hidden = grad.size(1);
  const ScalarType sums = ddarts::accumulate_dtype(grad);
  Tensor of_states = torch::stable::new_empty(grad, {count, batch, hidden});
  Tensor of_gates = torch::stable::new_empty(grad, {count, batch, 2 * hidden});
  Tensor of_weights = torch::stable::new_empty(grad, {count, weights.size(1)}, sums);
  if (grad.numel() == 0) {
    of_weights = torch::stable::zero_(of_weights);
  } else {
    Given given(states, gates, weights, activations);
    const Tensor sent = torch::stable::contiguous(grad);
    given.shape.packets = given.shape.packets && reinterpret_cast<uintptr_t>(sent.const_data_ptr()) % 16 == 0;
    const ddarts::DType dtype = ddarts::dtype_of(grad);
    Tensor partial = torch::stable::new_empty(
        grad, {ddarts::recurrent_node_parts(dtype, given.shape), count, weights.size(1)}, sums);
    DDARTS_CUDA_CHECK(ddarts::recurrent_node_backward(dtype, given.table, given.shape, given.weights.const_data_ptr(),
                                                      sent.const_data_ptr(), of_states.mutable_data_ptr(),
                                                      of_gates.mutable_data_ptr(), partial.mutable_data_ptr(),
                                                      of_weights.mutable_data_ptr(), device.stream()));
  }
  if (of_weights.scalar_type() != weights.scalar_type()) of_weights = torch::stable::to(of_weights, weights.scalar_type());
  return {of_states, of_gates, of_weights};
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("recurrent_node", TORCH_BOX(&recurrent_node));
  m.impl("recurrent_node_backward", TORCH_BOX(&recurrent_node_backward));
}

}  // namespace
