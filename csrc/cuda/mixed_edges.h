// Launchers of mixed_edges, those that are not the ones of its parts; see mixed_edges.cuh and mixed_edges_input.cuh.
#pragma once

#include "mixed_sum.h"

namespace ddarts {

constexpr int kEdgesTargets = 16;  // of a launch, as kMixedBranches of branches

// Means and rstds that moments [tiles, 3, C] a group become; no moments: 0 and 1.
struct EdgesMoments {
  const void* partial;  // of the first group
  void *mean, *rstd;    // [C] of the first group; groups lie `rows` of them apart
  int32_t rows, tiles;
};
struct EdgesJoin {
  EdgesMoments entry[kMixedBranches];
  int count;
};

// Sums, or gradients of sums: the entries [begin, end) of a table enter one.
struct EdgesTarget {
  const void *previous, *grad;
  void* out;
  int32_t begin, end, target;
};
struct EdgesTargets {
  EdgesTarget target[kEdgesTargets];
  int count;
};

// What the gradient of an op's output depends on.
struct EdgesTerm {
  int32_t k, target;
  bool centred, summed;  // its statistics depend on it; there are sums over it
};
struct EdgesTerms {
  EdgesTerm term[kMixedBranches];
  int count;
  int64_t rows;  // of the coefficients
  bool weights_grad;
};

// mean and rstd of moments of outputs, of the shape's groups and values.
cudaError_t mixed_edges_join(const MixedShape&, const EdgesJoin&, double eps, cudaStream_t);
// out = previous (or 0) + sum over the target's branches.
cudaError_t mixed_edges_output(const MixedShape&, const MixedTable&, const EdgesTargets&, const void* weights, const void* mean, const void* rstd,
                               DType dtype, cudaStream_t);
// partial [K + T, G, tiles, C]: rows k of sums of g (x - mean) of the table's branches, rows K + t of sums of g.
cudaError_t mixed_edges_products(const MixedShape&, const MixedTable&, const EdgesTargets&, const void* mean, void* partial, DType dtype,
                                 cudaStream_t);
// coefficients [3, G, rows, C] of the terms' branches: the gradient of an output y is a g + s y + d. d_weights [G, K] of theirs,
// if wanted.
cudaError_t mixed_edges_coefficients(const MixedShape&, const EdgesTerms&, const void* partial, const void* weights, const void* mean,
                                     const void* rstd, void* coefficients, void* d_weights, cudaStream_t);

enum EdgesKind { kEdgesMaximum, kEdgesAverage, kEdgesSkip };

// The gradient of x through pools and skips.
struct EdgesInput {
  struct Entry {
    const void* grad;
    int32_t k[3];  // by kind the row of coefficients, or -1
  };
  int64_t n, c, h, w, out_h, out_w, batch;
  const void* y[3];  // by kind, where its gradient depends on it
  const uint8_t* argmax;
  const void* coefficients;  // [3, G, rows, C]
  int64_t rows;
  void* dx;
  int stride, count;
  bool has[3], add, channels_last, packets;  // add: to dx, which is there
  Entry entry[kMixedBranches];
};
cudaError_t mixed_edges_input(DType, const EdgesInput&, cudaStream_t);

}  // namespace ddarts
