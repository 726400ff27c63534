// Launchers of recurrent_node; see recurrent_node.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

constexpr int kRecurrentRows = 32;  // predecessors in a launch: the table travels as a kernel argument, so a graph can capture it

struct RecurrentTable {
  const void* state[kRecurrentRows];
  const void* gates[kRecurrentRows];
  int64_t state_stride[kRecurrentRows];  // from a row to the next, in values
  int64_t gates_stride[kRecurrentRows];
  int count;
};

struct RecurrentShape {
  int64_t batch, hidden;
  int column[4];  // of tanh, relu, sigmoid and identity in a row of the weights, -1 where one is not used
  int columns;    // values of a row of the weights
  bool packets;   // every row can be read and written in packets of 16 bytes
};

// Blocks that share the sums of a predecessor's weights: partial is [parts][count * columns] of the sums' dtype.
int64_t recurrent_node_parts(DType, const RecurrentShape&);

// weights: [count, columns] of the sums' dtype. out: [batch, hidden].
cudaError_t recurrent_node(DType, const RecurrentTable&, const RecurrentShape&, const void* weights, void* out, cudaStream_t);

// of_states: [count, batch, hidden]; of_gates: [count, batch, 2 hidden]; of_weights: like weights.
cudaError_t recurrent_node_backward(DType, const RecurrentTable&, const RecurrentShape&, const void* weights, const void* grad,
                                    void* of_states, void* of_gates, void* partial, void* of_weights, cudaStream_t);

}  // namespace ddarts
