// Convolutions of three taps by Winograd's F(6, 3); kernels/winograd.py says what the letters mean.
//
// A tile is 6 outputs that lie `dilation` rows apart, made of 8 inputs by 8 products. All that is one product's for all
// tiles is a plane; a plane's row i is of the tile i / dilation, and of its phase i % dilation.
#include "products.h"

#define TILE 6
#define PLANES 8
#define HALF (PANEL / 2)
#define GROUP 96               // rows of a plane at once: what belongs to them lies in the cache
#define Y_PLANE (GROUP * PANEL)

static inline long first_row(long row, long dilation) { return row / dilation * TILE * dilation + row % dilation; }

#define KIND float
#define TYPE float
#include "winograd_of.h"
#define KIND bf16
#define TYPE uint16_t
#include "winograd_of.h"

// Rows of a group.
long winograd_group(void) { return GROUP; }

// x = B' d, PLANES planes of tiles * dilation rows
void winograd_inputs(const float *restrict h, float *restrict x, long tiles, long dilation, long width, long threads) {
    FOR_ROWS(tiles * dilation)
    transform_float(h, x + row * width, row, 1, tiles * dilation * width, dilation, width);
}

// y = A dy of the gradients of rows
void winograd_gradients(const float *restrict grad, float *restrict y, long tiles, long dilation, long width,
                        long threads) {
    const long plane = tiles * dilation * width, step = dilation * width;
    FOR_ROWS(tiles * dilation) {
        const float *restrict d = grad + first_row(row, dilation) * width;
        float *restrict to = y + row * width;
        FOR_CHANNELS(width) {
            const float d0 = d[c], d1 = d[c + step], d2 = d[c + 2 * step];
            const float d3 = d[c + 3 * step], d4 = d[c + 4 * step], d5 = d[c + 5 * step];
            const float even2 = d0 + 4 * d2 + 16 * d4, odd2 = 2 * d1 + 8 * d3 + 32 * d5;
            const float even3 = d0 + 0.25f * d2 + 0.0625f * d4, odd3 = 0.5f * d1 + 0.125f * d3 + 0.03125f * d5;
            to[c] = d0;
            to[c + plane] = d0 + d2 + d4 + (d1 + d3 + d5);
            to[c + 2 * plane] = d0 + d2 + d4 - (d1 + d3 + d5);
            to[c + 3 * plane] = even2 + odd2;
            to[c + 4 * plane] = even2 - odd2;
            to[c + 5 * plane] = even3 + odd3;
            to[c + 6 * plane] = even3 - odd3;
            to[c + 7 * plane] = d5;
        }
    }
}

// `count` channels of the rows of grad that a tile reads += B x
static inline void add_tile(const float *restrict x, float *restrict grad, long step, long count) {
    FOR_CHANNELS(count) {
        const float x0 = x[c], x1 = x[c + Y_PLANE], x2 = x[c + 2 * Y_PLANE], x3 = x[c + 3 * Y_PLANE];
        const float x4 = x[c + 4 * Y_PLANE], x5 = x[c + 5 * Y_PLANE], x6 = x[c + 6 * Y_PLANE], x7 = x[c + 7 * Y_PLANE];
        const float even1 = x1 + x2, odd1 = x1 - x2, even2 = x3 + x4, odd2 = x3 - x4, even3 = x5 + x6, odd3 = x5 - x6;
        grad[c] += x0;
        grad[c + step] += odd1 + 0.5f * odd2 + 2 * odd3 - x7;
        grad[c + 2 * step] += even1 + 0.25f * even2 + 4 * even3 - 5.25f * x0;
        grad[c + 3 * step] += 5.25f * x7 - 4.25f * odd1 - 2.5f * (odd2 + odd3);
        grad[c + 4 * step] += 5.25f * x0 - 4.25f * even1 - 1.25f * even2 - 5 * even3;
        grad[c + 5 * step] += odd1 + 2 * odd2 + 0.5f * odd3 - 5.25f * x7;
        grad[c + 6 * step] += even1 + even2 + even3 - x0;
        grad[c + 7 * step] += x7;
    }
}

// rows of grad, of `width` channels, += B [(G g)' y]; y is planes of rows of `depth` from winograd_gradients, panels are
// from panels_float, `room` is for `threads` threads. Tiles overlap: groups beside each other take turns.
void winograd_input_gradients(const float *restrict y, const float *restrict panels, float *restrict grad,
                              float *restrict room, long tiles, long dilation, long depth, long width, long threads) {
    const long total = tiles * dilation, size = group_size(total, GROUP, 2 * threads);
    const long groups = (total + size - 1) / size;
    for (long parity = 0; parity < 2; parity++) {
        _Pragma("omp parallel for schedule(static, 1) num_threads(dilation > size ? 1 : threads)")
        for (long thread = 0; thread < threads; thread++) {
            float *x = room + thread * PLANES * Y_PLANE;
            for (long group = 2 * thread + parity; group < groups; group += 2 * threads) {
                const long first = group * size, count = total - first < size ? total - first : size;
                const float *own = panels;
                for (long begin = 0; begin < width; begin += PANEL) {
                    for (int p = 0; p < PLANES; p++, own += depth * PANEL)
                        multiply_float(count, depth, y + (p * total + first) * depth, depth, own, x + p * Y_PLANE, 0);
                    const long channels = width - begin < PANEL ? width - begin : PANEL;
                    for (long t = 0; t < count; t++)
                        add_tile(x + t * PANEL, grad + first_row(first + t, dilation) * width + begin,
                                 dilation * width, channels);
                }
            }
        }
    }
}

// out, planes of (rows, size), = G w of three taps w = g v / |v|, v is (rows, size, 3)
void winograd_weights(const float *restrict v, const float *restrict g, float *restrict out, long rows, long size,
                      long threads) {
    const long plane = rows * size;
    FOR_ROWS(rows) {
        const float *restrict own = v + row * size * 3;
        const float factor = g[row] / sqrtf(squares(own, 3 * size));
        float *restrict to = out + row * size;
        FOR_CHANNELS(size) {
            const float w0 = factor * own[3 * c], w1 = factor * own[3 * c + 1], w2 = factor * own[3 * c + 2];
            const float both = w0 + w2, far = w0 + 4 * w2, near = 4 * w0 + w2;
            to[c] = w0;
            to[c + plane] = (both + w1) * (-2.0f / 9);
            to[c + 2 * plane] = (both - w1) * (-2.0f / 9);
            to[c + 3 * plane] = (far + 2 * w1) * (1.0f / 90);
            to[c + 4 * plane] = (far - 2 * w1) * (1.0f / 90);
            to[c + 5 * plane] = (near + 2 * w1) * (8.0f / 45);
            to[c + 6 * plane] = (near - 2 * w1) * (8.0f / 45);
            to[c + 7 * plane] = w2;
        }
    }
}

// from the gradient of winograd_weights' out: that of v, and grad_g
void winograd_weight_gradients(const float *restrict grad, const float *restrict v, const float *restrict g,
                               float *restrict grad_v, float *restrict grad_g, long rows, long size, long threads) {
    const long plane = rows * size;
    FOR_ROWS(rows) {
        const float *restrict u = grad + row * size;
        float *restrict to = grad_v + row * size * 3;
        FOR_CHANNELS(size) {
            const float u1 = u[c + plane], u2 = u[c + 2 * plane], u3 = u[c + 3 * plane];
            const float u4 = u[c + 4 * plane], u5 = u[c + 5 * plane], u6 = u[c + 6 * plane];
            const float both = (u1 + u2) * (-2.0f / 9), far = (u3 + u4) * (1.0f / 90), near = (u5 + u6) * (8.0f / 45);
            const float odd = (u3 - u4) * (1.0f / 45) + (u5 - u6) * (16.0f / 45);
            to[3 * c] = u[c] + both + far + 4 * near;
            to[3 * c + 1] = (u1 - u2) * (-2.0f / 9) + odd;
            to[3 * c + 2] = u[c + 7 * plane] + both + 4 * far + near;
        }
        normalise_row(to, v + row * size * 3, g[row], grad_g + row, 3 * size);
    }
}
