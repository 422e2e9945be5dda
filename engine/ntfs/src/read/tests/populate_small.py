# Fills a small mounted NTFS volume so that every structure of the reader occurs at least once.
import os, random, sys
root = sys.argv[1]
rnd = random.Random(9)
def put(path, data):
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, 'wb') as f: f.write(data)
for i in range(150): put(f'directory/file number {i:04}.txt', b'%d' % i)
put('plain.bin', rnd.randbytes(40_000))
put('deep/er/and/deeper/leaf.txt', b'leaf')
with open(os.path.join(root, 'frag a'), 'wb') as a, open(os.path.join(root, 'frag b'), 'wb') as b:
    for i in range(250):
        for f in (a, b): f.write(rnd.randbytes(600)); f.flush(); os.fsync(f.fileno())
with open(os.path.join(root, 'sparse.bin'), 'wb') as f:
    for i in range(10): f.seek(i * 90_000); f.write(rnd.randbytes(700))
for i in range(30): os.link(os.path.join(root, 'plain.bin'), os.path.join(root, f'directory/link to it with a long name {i:03}.bin'))
for i in range(20): os.setxattr(os.path.join(root, 'sparse.bin'), f'user.stream{i:02}', rnd.randbytes(50 + i * 30))
packed = os.path.join(root, 'packed'); os.makedirs(packed)
os.setxattr(packed, 'system.ntfs_attrib', (0x810).to_bytes(4, 'little'))
with open(os.path.join(packed, 'text.txt'), 'wb') as f: f.write(b''.join(b'%d lines of text\n' % i for i in range(5000)))
