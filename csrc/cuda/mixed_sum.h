// Launchers of mixed_sum; see mixed_sum.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

constexpr int kMixedBranches = 96;  // in one launch: the table travels as a kernel argument, so a graph can capture it

struct MixedBranch {
  const void* x;
  void* dx;       // backward only
  int32_t index;  // which of the K branches: row of weights, mean, rstd
  int32_t pitch;  // of x: values from a pixel to the next in channels-last, more than there are channels where x is a part of them
  DType dtype;
  bool flag;  // statistics: normalised; dx: centred, i.e. the statistics depend on x
};

struct MixedTable {
  MixedBranch branch[kMixedBranches];
  int count;
};

struct MixedShape {
  int64_t groups, batch, channels, pixels;  // batch: of one group
  int64_t branches;                         // K
  bool channels_last, wide;                 // wide: sums and tables are float64, else float32
  bool packets;                             // every tensor can be read in packets
  int64_t values() const { return batch * pixels; }
};

// Tiles that the reductions cut a group into: their partial sums are [rows][groups][tiles][channels] times the
// number of quantities (3 for the moments, 1 for the sums).
int64_t mixed_sum_tiles(const MixedShape& shape);
// Whether tensors of this shape can be read in packets, where every pointer is a multiple of 16 bytes.
bool mixed_sum_packets(const MixedShape& shape);

// Moments of the table's branches: partial [entries of the table, G, tiles, 3, C], the numbers of values, their means and the
// squares about these.
cudaError_t mixed_sum_moments(const MixedShape&, const MixedTable&, void* partial, cudaStream_t);
// The same and, from them, the branches' rows of mean and rstd [G,K,C].
cudaError_t mixed_sum_statistics(const MixedShape&, const MixedTable&, void* partial, double eps, void* mean, void* rstd,
                                 cudaStream_t);
// Rows of mean and rstd: given [1 or G,K,C] where flagged, else 0 and 1.
cudaError_t mixed_sum_given(const MixedShape&, const MixedTable&, const void* given_mean, const void* given_rstd,
                            int64_t given_groups, void* mean, void* rstd, cudaStream_t);
// carry (or out, where last) = carry (or 0, where first) + sum over the table. carry: like out, of the sums' dtype. fill:
// write the rows of mean and rstd that are not flagged, 0 and 1.
cudaError_t mixed_sum_output(const MixedShape&, const MixedTable&, const void* weights, void* mean, void* rstd, bool fill,
                             void* carry, bool first, bool last, void* out, DType out_dtype, cudaStream_t);
// sums[g,k,c] = sum of grad xhat_k for the table's branches; row K = sum of grad where asked.
cudaError_t mixed_sum_products(const MixedShape&, const MixedTable&, const void* grad, DType grad_dtype, int64_t grad_pitch, const void* mean,
                               const void* rstd, void* partial, bool sum_grad, void* sums, cudaStream_t);
// Gradients of the table's branches and, where d_weights is not null, of all weights: d_weights[g,k] = sum over channels of
// sums[g,k,c], or 0 without weights_grad.
cudaError_t mixed_sum_gradients(const MixedShape&, const MixedTable&, const void* grad, DType grad_dtype, int64_t grad_pitch,
                                const void* weights, const void* mean, const void* rstd, const void* sums,
                                bool weights_grad, void* d_weights, cudaStream_t);

}  // namespace ddarts
