// Batches of images out of a data set that lies in the memory of the device.
//
//      images [ 0 | 1 | 2 | 3 | ... ]                    y [ image 2, moved | image 0, moved | ... ]
//                       ^   index = 2, 0, ...
//
//      y[r, c]  <-  image[r + down, c + right], mirrored left to right if asked: a thread has one
//      element of y, neighbouring threads neighbouring channels and pixels; 0 to 255 become [0, 1].
#include "common.cuh"

// a position mirrored at the borders until it is within 0 .. size - 1
__device__ inline i64 inside(i64 at, i64 size) {
    i64 period = size > 1 ? 2 * size - 2 : 1;
    at = (at % period + period) % period;
    return at < size ? at : period - at;
}

KERNEL(gather_images)(T* y, const unsigned char* images, const i64* index, const i64* moves,
                      i64 count, i64 most, i64 height, i64 width, i64 channels, bool reflect) {
    GRID_LOOP(i, count * height * width * channels) {
        i64 channel = i % channels, pixel = i / channels;
        i64 c = pixel % width, row = pixel / width, r = row % height, n = row / height;
        i64 image = index[n] < 0 ? 0 : index[n] >= most ? most - 1 : index[n];
        if (moves) {
            if (moves[3 * n + 2]) c = width - 1 - c;
            r += moves[3 * n];
            c += moves[3 * n + 1];
        }
        bool shown = reflect || (r >= 0 && r < height && c >= 0 && c < width);
        i64 from = ((image * height + inside(r, height)) * width + inside(c, width)) * channels;
        y[i] = shown ? static_cast<T>(images[from + channel]) / T(255) : T(0);
    }
}
