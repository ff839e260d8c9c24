// y = act(w * (x - mean) / sqrt(var + eps) + b): a normalisation followed by an activation.
// gan_engine/ops/norm_act.py is the definition.
//
// Memory is dense, [samples, outer, channels, inner]. Each sample and channel has a mean and a variance over outer and
// inner. Only one of samples and inner is more than 1. w and b repeat after `features` channels.
#pragma once

#include "common.h"

namespace gan_engine {

struct NormActShape {
    std::int64_t samples, outer, channels, inner, features;
};

// S is float, or double for float64. act(z) = z > 0 ? z : slope * z.
struct NormStatsParams {
    const void* x;
    void* mean;  // S [samples, channels]
    void* var;   // S [samples, channels], divided by outer * inner
    NormActShape shape;
    DType dtype;

    auto fields() { return std::tie(x, mean, var, shape, dtype); }
};

struct NormActParams {
    const void* x;
    const void* mean;
    const void* var;
    const void* w;  // S [features]
    const void* b;  // S [features]
    void* y;
    NormActShape shape;
    DType dtype;
    double slope, eps;

    auto fields() { return std::tie(x, mean, var, w, b, y, shape, dtype, slope, eps); }
};

// dw and db are S [samples, channels]; the caller sums them over the channels that share a feature. With
// constant_stats, mean and var do not depend on x.
struct NormActGradParams {
    const void* dy;
    const void* x;
    const void* mean;
    const void* var;
    const void* w;
    const void* b;
    void* dx;
    void* dw;
    void* db;
    NormActShape shape;
    DType dtype;
    double slope, eps;
    bool constant_stats;

    auto fields() { return std::tie(dy, x, mean, var, w, b, dx, dw, db, shape, dtype, slope, eps, constant_stats); }
};

// The gradient of norm_act_grad: (d_dy, d_x, d_w) from the gradients (v, v_w, v_b) by (dx, dw, db). d_w is S [samples,
// channels].
struct NormActSecondParams {
    const void* dy;
    const void* x;
    const void* mean;
    const void* var;
    const void* w;
    const void* b;
    const void* v;
    const void* v_w;  // S [features]; null stands for zeros
    const void* v_b;  // as v_w
    void* d_dy;
    void* d_x;
    void* d_w;
    NormActShape shape;
    DType dtype;
    double slope, eps;
    bool constant_stats;

    auto fields() {
        return std::tie(dy, x, mean, var, w, b, v, v_w, v_b, d_dy, d_x, d_w, shape, dtype, slope, eps, constant_stats);
    }
};

}  // namespace gan_engine
